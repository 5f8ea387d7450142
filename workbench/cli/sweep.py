"""The command that quantizes every layer with several recipes and seeds, each by itself."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.arguments import ClusterAddress, Json, Model, TextFile, Workers, complete_recipe, open_workers, read_text
from workbench.cli.long_jobs import announce_sweep
from workbench.cli.output import emit_page, show_progress
from workbench.cli.tables import format_layer_table, format_table
from workbench.seeds import check_seed

if TYPE_CHECKING:
    import pandas as pd

    from workbench.cluster.task_map import TaskProgress

SWEEP_COLUMNS = ["name", "recipe", "seed", "bits_per_weight", "relative_error", "output_error", "seconds"]


def sweep(
    model: Model,
    recipe: Annotated[
        list[str],
        typer.Option(
            "--recipe",
            metavar="NAME[:key=value,...]",
            help="A preset with its settings; repeat for several.",
            autocompletion=complete_recipe,
        ),
    ],
    layers: Annotated[
        str, typer.Option("--layers", metavar="PATTERN,...", help="Layers to quantize, for example '*.mlp.*'.")
    ] = "*",
    seeds: Annotated[str, typer.Option("--seeds", metavar="N,...", help="Random seeds, separated by commas.")] = "0",
    text: TextFile = "calibration",
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=1, help="Maximum number of calibration tokens.")] = 16_384,
    by_layer: Annotated[bool, typer.Option("--by-layer", help="List every layer, too.")] = False,
    workers: Workers = None,
    cluster: ClusterAddress = None,
    as_json: Json = False,
) -> None:
    """Quantize every layer with several recipes and seeds, and compare bits, errors and seconds.

    Every layer is quantized by itself, and nothing is saved but these figures, which are cached: a sweep that was stopped goes
    on where it ended. Results are the same bit for bit on one worker or many; seconds are those of the run that computed them.
    """
    from workbench.analysis.decisions.recipe_sweep import summarise_sweep, sweep_steps
    from workbench.jobs import run_steps
    from workbench.models import open_model
    from workbench.presets import parse
    from workbench.store import Store

    recipes, document, chosen_seeds = {name: parse(name) for name in recipe}, read_text(text), _parse_seeds(seeds)
    handle, store, begin = open_model(model), Store(), time.perf_counter()
    announce_sweep(handle, list(recipes.values()), layers, len(chosen_seeds), document, tokens)
    options: dict[str, Any] = {"layers": layers, "seeds": chosen_seeds, "calibration": document, "tokens": tokens}
    latest: TaskProgress | None = None

    def see(step: "TaskProgress") -> None:
        nonlocal latest
        latest = step
        report(step.done, step.total)

    with open_workers(cluster, workers) as connected, show_progress("sweeping", quiet=as_json) as report:
        steps = sweep_steps(handle, recipes, **options, store=store, cluster=connected)
        table = run_steps(steps, see)
    summary = summarise_sweep(table)
    facts = {
        "model": model,
        "text": document.name,
        "tokens": tokens,
        "tasks": 0 if latest is None else latest.total,
        "stored": 0 if latest is None else latest.stored,
        "seconds": time.perf_counter() - begin,
        "recipes": summary.to_dict("records"),
        "layers": table.to_dict("records"),
    }
    emit_page(facts, as_json=as_json, text=_format_sweep(facts, summary, table, by_layer=by_layer))


def _parse_seeds(seeds: str) -> list[int]:
    """The numbers of a list such as 0,1; wrong usage where one is none."""
    parts = seeds.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise typer.BadParameter(f"--seeds {seeds!r} must be whole numbers separated by commas, such as 0,1.")
    return [check_seed(int(part)) for part in parts]


def _format_sweep(facts: dict[str, Any], summary: "pd.DataFrame", table: "pd.DataFrame", *, by_layer: bool) -> str:
    """One row a recipe, every layer where that is wanted, the layers that a recipe does not fit, and how much was cached."""
    lines = []
    if by_layer:
        lines += [format_layer_table(table.loc[table["problem"] == "", SWEEP_COLUMNS].sort_values("name", kind="stable")), ""]
    shown = summary.drop(columns="problems")
    if shown["output_error"].isna().all():
        shown = shown.drop(columns="output_error")
    lines += [format_table(shown, folds="worst_layer"), ""]
    for recipe, part in table[table["problem"] != ""].groupby("recipe", sort=False):
        lines.append(f"{recipe} does not fit {part['name'].nunique()} layers: {part['problem'].iloc[0]}")
    run = facts["tasks"] - facts["stored"]
    lines.append(f"{facts['tasks']:,} tasks: {facts['stored']:,} were in the cache, {run:,} ran, {facts['seconds']:.1f} seconds")
    return "\n".join(lines)
