"""The command that estimates a run on many machines from costs measured on this one."""

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.arguments import Json, RecipeText
from workbench.cli.output import emit_page, show_progress
from workbench.cli.tables import Column, format_rows

if TYPE_CHECKING:
    from workbench.cluster.cost_model import CostModel
    from workbench.cluster.run_estimate import RunEstimate
    from workbench.models.config_shapes import ModelShapes

ESTIMATE_COLUMNS = (
    Column("machines", right=True), Column("calibration", right=True), Column("quantizing", right=True),
    Column("total", right=True), Column("range", right=True), Column("machine hours", right=True), Column("price", right=True),
)  # fmt: skip
TERM_NAMES = ("columns", "weights", "rows × columns²", "columns³")


def estimate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL|CONFIG", help="builtin, a folder with config.json, or its config.json."),
    ],
    recipe: RecipeText,
    machines: Annotated[str, typer.Option("--machines", metavar="N,...", help="Numbers of machines.")] = "1,8,64",
    cores: Annotated[
        int | None, typer.Option("--cores", metavar="N", min=1, help="Cores of each machine. By default, as many as here.")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=0, help="Calibration tokens.")] = 16_384,
    price: Annotated[
        float | None, typer.Option("--price", metavar="X", min=0, help="Price of a machine for an hour, in any currency.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate time, memory and price of quantizing a model on several machines.

    The recipe is timed on small matrices here, on one thread; costs for each weight, for rows × columns² and for columns³ are
    fitted and extrapolated to the shapes in the model's config.json. The range says how far the result moves if each
    measurement is off by a tenth; it assumes idle machines like this one, and says nothing of reading files over a network.
    """
    from workbench.cluster.cost_model import measure_costs_steps
    from workbench.cluster.run_estimate import estimate_run
    from workbench.jobs import run_steps
    from workbench.models.config_shapes import read_model_shapes
    from workbench.presets import parse

    counts, chosen, shapes = _parse_machines(machines), parse(recipe), read_model_shapes(model)
    with show_progress("measuring costs", quiet=as_json) as report:
        costs = run_steps(measure_costs_steps(chosen), lambda step: report(step.fraction, 1))
    machine_cores = cores or os.cpu_count() or 1
    runs = [estimate_run(shapes, costs, count, cores=machine_cores, tokens=tokens, price=price) for count in counts]
    facts = {
        "model": model,
        "recipe": recipe,
        "layers": len(shapes.layers),
        "weights": shapes.weights,
        "other_parameters": shapes.other_parameters,
        "tokens": tokens if costs.uses_moment else 0,
        "costs": {name: value for name, value in asdict(costs).items() if name != "alternatives"},
        "runs": [
            {**asdict(run), "seconds": run.seconds, "memory": run.memory, "machine_hours": run.machine_hours, "cost": run.cost}
            for run in runs
        ],
    }
    emit_page(facts, as_json=as_json, text=_format_estimate(shapes, costs, runs))


def _parse_machines(machines: str) -> list[int]:
    """The numbers of a list such as 1,8,64; wrong usage where one is none."""
    parts = [part.strip() for part in machines.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"--machines {machines!r} must be numbers from 1 on, separated by commas, such as 1,8,64.")
    return [int(part) for part in parts]


def _format_estimate(shapes: "ModelShapes", costs: "CostModel", runs: "list[RunEstimate]") -> str:
    """One row a number of machines, and what the figures are made of."""
    rows = []
    for run in runs:
        calibration = _spell_hours(run.calibration) if run.calibration else "–"
        times = [calibration, _spell_hours(run.quantizing), _spell_hours(run.seconds)]
        spread = f"{_spell_hours(run.low)}–{_spell_hours(run.high)}"
        cost = "" if run.cost is None else f"{run.cost:,.2f}"
        rows.append([str(run.machines), *times, spread, _shorten(run.machine_hours), cost])
    stored = shapes.weights * costs.bits_per_weight / 8 + 2 * shapes.other_parameters
    terms = " + ".join(f"{term:.2g} s × {name}" for term, name in zip(costs.terms, TERM_NAMES, strict=True) if term)
    sizes = ", ".join(f"{one.rows}×{one.cols}" for one in costs.measured)
    columns = ESTIMATE_COLUMNS if runs[0].cost is not None else ESTIMATE_COLUMNS[:-1]
    title = (
        f"{shapes.source}: {len(shapes.layers)} layers with {_spell_count(shapes.weights)} weights; "
        f"about {_spell_bytes(stored)} when quantized ({costs.bits_per_weight:.3g} bits per weight)"
    )
    method = (
        f"an extrapolation from {len(costs.measured)} matrices measured here on one thread ({sizes}): a layer takes "
        f"{terms}; the fit misses a measurement by up to {costs.misfit:.0%}. The range is what is left open where every "
        "measurement is off by as much, or by a tenth"
    )
    lines = [
        title,
        "",
        format_rows(columns, [row[: len(columns)] for row in rows]),
        "",
        method,
        f"each of {runs[0].cores} workers of a machine needs {runs[0].worker_memory / 1e9:.1f} GB of memory",
    ]
    if costs.learns:
        lines.append("at least: what is learned or refined takes more, and was not measured")
    return "\n".join(lines)


def _spell_count(number: float) -> str:
    """Millions or billions."""
    return f"{number / 1e9:,.3g} billion" if number >= 1e9 else f"{number / 1e6:.3g} million"


def _spell_bytes(number: float) -> str:
    """Megabytes or gigabytes."""
    return f"{number / 1e9:,.3g} GB" if number >= 1e9 else f"{number / 1e6:.3g} MB"


def _spell_hours(seconds: float) -> str:
    """A rough time in words."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{_shorten(seconds / 3600)} h"


def _shorten(number: float) -> str:
    """Three digits or so."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
