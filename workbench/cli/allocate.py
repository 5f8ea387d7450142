"""The command that decides which layer gets which recipe under a budget of stored bits."""

import time
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.arguments import Json, Model, Seed, TextFile, read_text
from workbench.cli.long_jobs import announce_allocation
from workbench.cli.output import emit_page, format_table, show_progress


def allocate(
    model: Model,
    bits: Annotated[float, typer.Option("--bits", min=0.0, help="Stored bits per weight, over all layers.")],
    recipe: Annotated[
        list[str], typer.Option("--recipe", metavar="NAME[:key=value,...]", help="A preset to choose from; give two or more.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the plan is saved, for `workbench quantize --plan`.")],
    method: Annotated[
        str, typer.Option("--method", help="lagrangian, milp, closed-form; or lim, zd, entropy to go by that score.")
    ] = "lagrangian",
    layers: Annotated[str, typer.Option("--layers", metavar="PATTERN", help="Which layers, for example '*.mlp.*'.")] = "*",
    text: TextFile = "calibration",
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Measure every option on at most so many tokens.")] = 2048,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure every layer under every recipe, alone, and choose under the budget; losses are taken to add up.

    What is measured is kept: another budget or method on the same model, text and recipes takes no time.
    """
    from workbench.analysis.decisions.layer_scores import layer_scores
    from workbench.analysis.predictions.sensitivity import sensitivity
    from workbench.analysis.predictions.suffix_replay import Replay
    from workbench.atomic import write_file
    from workbench.calibration import calibrate
    from workbench.models import open_model
    from workbench.outputs import check_file
    from workbench.presets import parse
    from workbench.quantizers.allocation import Ranked
    from workbench.quantizers.allocation import allocate as choose
    from workbench.quantizers.allocation.ranked import SCORES
    from workbench.store import Store

    recipes, document = {name: parse(name) for name in recipe}, read_text(text)
    check_file(out)  # now rather than after the work
    handle, store, begin, calibration = open_model(model), Store(), time.perf_counter(), read_text("calibration")
    announce_allocation(handle, list(recipes.values()), layers, calibration, document, tokens)
    with show_progress("calibrating", quiet=as_json) as report:
        stats = calibrate(handle, calibration, seed=seed, on_progress=report, store=store)
    replay = Replay(handle, document, tokens=tokens)
    with show_progress("measuring options", quiet=as_json) as report:
        step = lambda done: report(done.fraction, 1)  # noqa: E731
        options = sensitivity(replay, recipes, stats=stats, layers=layers, store=store, on_progress=step)
    ranked = method in SCORES
    scores = layer_scores(handle, document, tokens=tokens, seed=seed) if ranked else None
    allocation = choose(options, recipes, bits, Ranked(by=method) if ranked else method, scores=scores)
    write_file(out, allocation.plan.to_json())
    facts = {
        "model": model,
        "out": str(out),
        "method": method,
        "bits_per_weight": allocation.bits_per_weight,
        "predicted_kl": allocation.loss,
        "text": document.name,
        "tokens": replay.noise.tokens,
        "seed": seed,
        "seconds": time.perf_counter() - begin,
        "layers": allocation.table.to_dict("records"),
    }
    sentence = (
        f"{format_table(allocation.table)}\n\n{allocation.bits_per_weight:.2f} bits per weight stored, predicted KL "
        f"{allocation.loss:.4f} nats per token (each layer's own, added up)\nplan in {out}"
    )
    emit_page(facts, as_json=as_json, text=sentence)
