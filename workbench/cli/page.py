"""export-page: the squeeze of a model as one HTML file that needs no server."""

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.arguments import Json, Model, Seed
from workbench.cli.long_jobs import announce_stops
from workbench.cli.output import emit_page, show_progress


def export_page(
    model: Model,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The HTML file that is written.")],
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="What every model continues.")] = "Once upon a time",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write the squeeze slider with texts, layer errors, histograms and ledgers as one HTML file that opens offline.

    Stops that are not built yet are built first, as by `workbench squeeze`.
    """
    from workbench.analysis.decisions.squeeze import Squeeze
    from workbench.analysis.decisions.squeeze_page import collect_page_steps
    from workbench.jobs import run_steps
    from workbench.models import open_model
    from workbench.outputs import check_file
    from workbench.views.decisions.squeeze_page import save_squeeze_page

    check_file(out)  # now rather than after the work
    squeeze = Squeeze(open_model(model), seed=seed)
    missing = [stop.recipe for stop in squeeze.stops if squeeze.find(stop) is None]
    announce_stops(squeeze.model, missing, squeeze.tokens, squeeze.evaluation)
    with show_progress("collecting the page", quiet=as_json) as report:
        page = run_steps(collect_page_steps(squeeze, prompt), lambda step: report(step.fraction, 1))
    path = save_squeeze_page(page, out)
    facts = {"model": model, "page": str(path), "bytes": path.stat().st_size, "stops": len(page.stops)}
    emit_page(facts, as_json=as_json, text=f"{path}: {len(page.stops)} stops, {path.stat().st_size:,} bytes")
