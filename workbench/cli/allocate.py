"""The command that assigns a recipe to each layer under a budget of stored bits."""

import time
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.arguments import (
    ClusterAddress,
    Json,
    Model,
    Seed,
    TextFile,
    Workers,
    complete_recipe,
    open_workers,
    read_text,
)
from workbench.cli.long_jobs import announce_allocation
from workbench.cli.output import emit_page, show_progress
from workbench.cli.tables import format_layer_table


def allocate(
    model: Model,
    bits: Annotated[float, typer.Option("--bits", metavar="N", min=0.0, help="Budget: stored bits per weight, over all layers.")],
    recipe: Annotated[
        list[str],
        typer.Option(
            "--recipe",
            metavar="NAME[:key=value,...]",
            help="A preset to choose from; repeat for two or more.",
            autocompletion=complete_recipe,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="File for the plan, to be used by `workbench quantize --plan`.")
    ],
    method: Annotated[
        str,
        typer.Option("--method", metavar="NAME", help="lagrangian, milp or closed-form; or lim, zd or entropy to rank by."),
    ] = "lagrangian",
    layers: Annotated[
        str, typer.Option("--layers", metavar="PATTERN", help="Layers to choose for, for example '*.mlp.*'.")
    ] = "*",
    text: TextFile = "calibration",
    tokens: Annotated[
        int, typer.Option("--tokens", metavar="N", min=1, help="Maximum number of tokens on which each option is measured.")
    ] = 2048,
    seed: Seed = 0,
    workers: Workers = None,
    cluster: ClusterAddress = None,
    as_json: Json = False,
) -> None:
    """Choose a recipe for each layer under a budget of stored bits.

    Every layer is measured alone under every recipe; losses are assumed to add up. Measurements are cached: another budget
    or method on the same model, text and recipes takes no time.
    """
    from workbench.analysis.decisions.layer_scores import layer_scores
    from workbench.analysis.predictions.sensitivity import sensitivity
    from workbench.analysis.predictions.suffix_replay import Replay
    from workbench.atomic import write_file
    from workbench.calibration import DEFAULT_TOKENS, calibrate
    from workbench.cluster.calibration import calibrate_steps
    from workbench.jobs import run_steps
    from workbench.models import open_model
    from workbench.outputs import check_file
    from workbench.presets import parse
    from workbench.quantizers.allocation import Ranked
    from workbench.quantizers.allocation import allocate as choose
    from workbench.quantizers.allocation.ranked import SCORES
    from workbench.quantizers.runs.quantize_layer import count_groups
    from workbench.store import Store

    recipes, document = {name: parse(name) for name in recipe}, read_text(text)
    check_file(out)  # now rather than after the work
    handle, store, begin, calibration = open_model(model), Store(), time.perf_counter(), read_text("calibration")
    announce_allocation(handle, list(recipes.values()), layers, calibration, document, tokens)
    with open_workers(cluster, workers) as connected:
        with show_progress("calibrating", quiet=as_json) as report:
            if connected is None:
                guided = count_groups(recipes.values())
                stats = calibrate(handle, calibration, seed=seed, on_progress=report, store=store, guided=guided)
            else:
                steps = calibrate_steps(handle, calibration, tokens=DEFAULT_TOKENS, seed=seed, store=store, cluster=connected)
                stats = run_steps(steps, lambda step: report(step.fraction, 1))
        replay = Replay(handle, document, tokens=tokens)
        with show_progress("measuring options", quiet=as_json) as report:
            step = lambda done: report(done.fraction, 1)  # noqa: E731
            options = sensitivity(replay, recipes, stats=stats, layers=layers, store=store, cluster=connected, on_progress=step)
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
        f"{format_layer_table(allocation.table)}\n\n{allocation.bits_per_weight:.2f} stored bits per weight, predicted KL "
        f"{allocation.loss:.4f} nats per token (sum over single layers)\nplan in {out}"
    )
    emit_page(facts, as_json=as_json, text=sentence)
