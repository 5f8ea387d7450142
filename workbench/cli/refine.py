"""The command that trains a saved quantized model further on what the original predicts."""

import time
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.arguments import Json, Seed, TextFile, read_text
from workbench.cli.output import emit_page, show_progress
from workbench.part_settings import MODEL_STEPS, REFINED


def refine(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder written by `workbench quantize`.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the result; an existing result is replaced.")],
    trains: Annotated[
        str, typer.Option("--trains", metavar="|".join(REFINED), help="Stored scales; also gains of norms; also codes.")
    ] = "codes",
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Maximum number of steps.")] = MODEL_STEPS,
    written: Annotated[
        int | None, typer.Option("--written", metavar="N", min=0, help="Tokens of text that the original writes for training.")
    ] = None,
    text: TextFile = "calibration",
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=1, help="Maximum number of tokens of the text.")] = 16_384,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a saved quantized model further on what the original predicts.

    All blocks are trained together on the divergence from the original's predictions, on the text and on text that the
    original writes. Stored bits stay as they are, and the numbers that do best on held-out text are saved. A run that was
    stopped resumes where it ended.
    """
    from workbench.artifact import is_artifact, load, save
    from workbench.models import open_model
    from workbench.outputs import check_folder
    from workbench.presets.preset import make_part
    from workbench.quantized import MODEL_REFINEMENT
    from workbench.quantizers import refine_model
    from workbench.store import Store

    out = out.expanduser()
    check_folder(out, is_artifact)  # now rather than after the work
    part = make_part("refinement", "model", what=trains, model_steps=steps, **({} if written is None else {"written": written}))
    document, saved, begin = read_text(text), load(folder), time.perf_counter()
    original = open_model(saved.source)
    with show_progress("training", quiet=as_json) as report:
        result = refine_model(
            saved,
            original,
            document,
            lambda step: report(step.fraction, 1, step.short_stage),
            refinement=part,
            tokens=tokens,
            seed=seed,
            store=Store(),
        )
    save(result, out, original)
    facts = {
        "folder": folder,
        "out": str(out),
        "bits_per_weight": result.bits_per_weight,
        "nominal_bits": result.nominal_bits,
        MODEL_REFINEMENT: result.calibration[MODEL_REFINEMENT],
        "changed_tensors": list(result.changed_tensors),
        "seconds": time.perf_counter() - begin,
    }
    sentence = f"{result.describe_refinement()}\n{result.describe_bits()}\n{out}, {facts['seconds']:.1f} seconds"
    emit_page(facts, as_json=as_json, text=sentence)
