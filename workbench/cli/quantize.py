"""The command that quantizes a model and saves it."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.arguments import AdapterFolder, Json, Model, Seed, TextFile, complete_recipe, read_text
from workbench.cli.long_jobs import Reading, announce_reading
from workbench.cli.output import emit_page, show_progress
from workbench.cli.streams import note
from workbench.cli.tables import format_layer_table
from workbench.errors import ArtifactError

if TYPE_CHECKING:
    import pandas as pd

    from workbench.models import ModelHandle
    from workbench.quantized import QuantizedLayer
    from workbench.quantizers.runs.preflight import Preflight
    from workbench.recipe import LayerPlan, Recipe


def quantize(
    model: Model,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the result; an existing result is replaced.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME[:key=value,...]",
            help="Preset with its settings, see `workbench recipes`.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="Plan written by `workbench allocate`, instead of --recipe.")
    ] = None,
    layers: Annotated[
        str,
        typer.Option(
            "--layers", metavar="PATTERN,...", help="Layers to quantize, for example '*.mlp.*' or '*,lm_head,*.embed_tokens'."
        ),
    ] = "*",
    head: Annotated[
        str,
        typer.Option(
            "--head",
            metavar="NAME[:key=value,...]",
            help="Also quantize the output head by this recipe, for example rtn:bits=8, and the embedding where they are tied.",
            autocompletion=complete_recipe,
        ),
    ] = "",
    adapter: AdapterFolder = None,
    text: TextFile = "calibration",
    imatrix: Annotated[
        Path | None,
        typer.Option("--imatrix", metavar="FILE", help="Calibrate on llama.cpp's importance matrix instead of a text."),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=1, help="Maximum number of calibration tokens.")] = 16_384,
    seed: Seed = 0,
    output_error: Annotated[
        bool,
        typer.Option(
            "--output-error", help="Measure every layer's output error on the text, even if the recipe needs no calibration."
        ),
    ] = False,
    fused: Annotated[bool, typer.Option("--fuse", help="Fuse rotations into the weights first, at no cost at run time.")] = False,
    folded: Annotated[
        bool, typer.Option("--fold", help="Fold learned gains and signs into the norms, where this is exact.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Quantize the matching layers of a model and save it.

    Recipes that need calibration run block by block: each layer is calibrated on the outputs of the quantized layers before
    it. A run that was stopped resumes where it ended.

    With --head, the output head, which stays as it is otherwise, is quantized too and counted with the layers. A head that is
    tied to the embedding shares one packed matrix with it. In 8 bits, each new token reads half as many bytes of the head.

    With --fuse, rotations are multiplied into the weights. The model computes the same function, and its weights quantize
    better; recipes without a transform then rotate online only before down_proj. Tied embeddings are stored twice.

    With --fold, gains and signs that were learned for the output of a norm are multiplied into the gains of that norm. They
    are then neither stored with the layers nor applied at run time.
    """
    from workbench.artifact import is_artifact, save
    from workbench.calibration import calibrate
    from workbench.exchange.takeover import read_imatrix
    from workbench.models import FusedModel, fuse, open_model
    from workbench.outputs import check_folder
    from workbench.presets import parse
    from workbench.quantized import MODEL_REFINEMENT, format_percent
    from workbench.quantizers import fold, quantize_model
    from workbench.quantizers.pipeline import can_use_moment, needs_text
    from workbench.quantizers.runs.preflight import estimate
    from workbench.quantizers.runs.quantize_layer import count_groups
    from workbench.quantizers.runs.quantize_model import add_head
    from workbench.store import Store

    if imatrix is not None and output_error:
        raise typer.BadParameter("--output-error needs a text; an importance matrix holds no correlations between inputs.")
    chosen, document = _read_recipe_or_plan(recipe, plan), read_text(text)
    out = out.expanduser()
    check_folder(out, is_artifact)  # now rather than after the work
    original = open_model(model, adapter=adapter)
    handle = fuse(original, seed=seed) if fused else original
    if head:
        chosen, name = add_head(handle, chosen, parse(head))
        layers = layers if layers == "*" else f"{layers},{name}"
    begin = time.perf_counter()
    reads = imatrix is None and any(needs_text(layer_recipe) for layer_recipe in _list_recipes(chosen))
    calibration_options: dict[str, Any] = {"text": document, "tokens": tokens, "seed": seed, "store": Store()} if reads else {}
    _check_room(out, estimate(handle, chosen, layers, tokens=tokens if reads else 0))
    measured = output_error or any(can_use_moment(layer_recipe) for layer_recipe in _list_recipes(chosen))
    if imatrix is not None:
        calibration_options = {"stats": read_imatrix(handle, imatrix)}
    elif measured and not reads:  # every layer by itself: nothing depends on what the layers before it became
        announce_reading(handle, Reading(document, tokens, by_block=True))
        with show_progress("calibrating", quiet=as_json) as report:
            names = _select_calibration_layers(handle, chosen, layers)
            options: dict[str, Any] = {"layers": names, "guided": count_groups(_list_recipes(chosen)), "store": Store()}
            stats = calibrate(handle, document, tokens=tokens, seed=seed, on_progress=report, **options)
            calibration_options = {"stats": stats}
    with show_progress("quantizing", quiet=as_json) as report:
        result = quantize_model(
            handle,
            chosen,
            layers=layers,
            on_progress=lambda step: report(step.fraction, 1, step.short_stage),
            **calibration_options,
        )
    if folded:
        result = fold(handle, result)
    save(result, out, original)
    table = result.table()
    untied = {
        name: count_packed_bytes(result.layers[name])
        for name in handle.optional_names
        if name in result.layers and handle.is_tied(name)
    }
    apart = handle.untied_bytes if isinstance(handle, FusedModel) and handle.head_name not in result.layers else 0
    both = handle.tied_head if handle.embedding_name in result.layers else None
    facts: dict[str, Any] = {
        "model": model,
        "out": str(out),
        "recipe": chosen.to_dict(),
        "bits_per_weight": result.bits_per_weight,
        "nominal_bits": result.nominal_bits,
        "coverage": result.coverage,
        "bits_overall": _read_file_bits(out),
        "unquantized": result.unquantized,
        "bytes": _count_stored_bytes(out),
        "fused": dict(result.fused),
        "untied_bytes": apart,
        "untied": list(untied),
        "untied_head_bytes": sum(untied.values()),
        "tied": {} if both is None else {both: handle.embedding_name},
        "tokens": result.calibration.get("tokens", 0),
        "unreached": [name for name in result.calibration.get("unreached", []) if name in result.layers],
        "sparse": {name: tokens for name, tokens in result.calibration.get("sparse", {}).items() if name in result.layers},
        "shrinkage": result.calibration.get("shrinkage"),
        "few_tokens": result.calibration.get("few_tokens", []),
        "seed": seed,
        "seconds": time.perf_counter() - begin,
        "changed_tensors": list(result.changed_tensors),
        MODEL_REFINEMENT: result.calibration.get(MODEL_REFINEMENT),
        "layers": table.drop(columns=["seconds"]).to_dict("records"),
    }
    sentence = (
        f"{_format_layers(table)}\n\n"
        f"{result.describe_bits(facts['bits_overall'])}\n{facts['bytes']:,} bytes in {out}, {facts['seconds']:.1f} seconds"
    )
    if apart:
        sentence += (
            f"\n{apart:,} of these bytes are the output head, which no longer shares memory with the embedding after fusing"
        )
    for name, size in untied.items():
        sentence += (
            f"\n{name} was tied to the embedding; it is now a separate packed matrix, {size:,} bytes "
            f"({result.layers[name].bits_per_weight:.4g} bits per weight) beside the unquantized embedding"
        )
    if both is not None:
        sentence += f"\n{both} is tied to {handle.embedding_name}: both share one packed matrix, which is counted once"
    if facts["shrinkage"]:
        least, most = map(format_percent, facts["shrinkage"])
        sentence += f"\ncorrelations of inputs were shrunk by {least} to {most}, more for layers that saw fewer tokens"
    if refined := result.describe_refinement():
        sentence += f"\n{refined}"
    for gap in result.calibration_gaps():
        sentence += f"\n{gap}"
    emit_page(facts, as_json=as_json, text=sentence)


def count_packed_bytes(layer: "QuantizedLayer") -> int:
    """Bytes of a layer's packed tensors."""
    return sum(tensor.nbytes for _, node in layer.packed.walk() for tensor in node.tensors.values())


def _format_layers(table: "pd.DataFrame") -> str:
    """The table of layers; a sentence where no output error was measured."""
    shown = table.drop(columns="seconds")
    if shown["output_error"].notna().any():
        return format_layer_table(shown)
    return f"{format_layer_table(shown.drop(columns='output_error'))}\noutput errors were not measured"


def _check_room(out: Path, preflight: "Preflight") -> None:
    """Say on standard error what the run takes; ArtifactError where the disk has no room for its result."""
    note(str(preflight))
    folder = next(parent for parent in out.expanduser().absolute().parents if parent.is_dir())
    if preflight.disk > (free := shutil.disk_usage(folder).free):
        raise ArtifactError(
            f"the result takes about {preflight.disk:,} bytes, and {folder} has {free:,} free; choose --out on a larger disk."
        )


def _select_calibration_layers(model: "ModelHandle", chosen: "Recipe | LayerPlan", patterns: str) -> list[str] | None:
    """The layers to calibrate: None, all in the blocks, unless others are to be quantized too."""
    from workbench.quantizers.runs.quantize_model import select_layer_names

    optional = [name for name in select_layer_names(model, chosen, patterns) if name in model.optional_names]
    return [*model.layer_names, *optional] if optional else None


def _read_recipe_or_plan(recipe: str | None, plan: Path | None) -> "Recipe | LayerPlan":
    """The recipe or the plan that was asked for; wrong usage unless it is exactly one."""
    from workbench.presets import parse
    from workbench.recipe import LayerPlan

    if recipe is not None and plan is None:
        return parse(recipe)
    if plan is None or recipe is not None:
        problem = "neither --recipe nor --plan is" if plan is None else "both --recipe and --plan are"
        raise typer.BadParameter(f"{problem} given; use exactly one of them.")
    return LayerPlan.read(plan)


def _list_recipes(chosen: "Recipe | LayerPlan") -> "list[Recipe]":
    """All recipes of a plan, or the one recipe."""
    from workbench.recipe import LayerPlan

    return [recipe for _, recipe in chosen.rules] if isinstance(chosen, LayerPlan) else [chosen]


def _count_stored_bytes(folder: Path) -> int:
    """Bytes of the saved weights: all safetensors files of the folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _read_file_bits(folder: Path) -> float:
    """Stored bits per weight of everything that was saved, by the ledger of the file."""
    from workbench.artifact.folder_layout import LEDGER
    from workbench.artifact.reading import read_document
    from workbench.bits import BitLedger

    return BitLedger.from_dict(read_document(folder / LEDGER).get("model")).bits_per_weight
