"""The command that builds the stops of the explorer's slider ahead of time and lists them."""

from dataclasses import asdict

from workbench.cli.arguments import ClusterAddress, Json, Model, Seed, Workers, open_workers
from workbench.cli.long_jobs import announce_stops
from workbench.cli.output import emit_page, show_progress
from workbench.cli.tables import format_table

STOP_COLUMNS = ["recipe", "bits_per_weight", "bytes", "perplexity", "ratio", "ratio_low", "ratio_high", "tokens_per_second"]


def squeeze(model: Model, seed: Seed = 0, workers: Workers = None, cluster: ClusterAddress = None, as_json: Json = False) -> None:
    """Build the model at each stop of the explorer's slider.

    The stops range from 16 to 0.7 stored bits per weight, and each is measured. They are stored on disk, where the explorer
    finds them; stops that exist already are only read. After Ctrl-C the finished stops remain. Workers quantize stops at the
    same time; they are measured here, one after the other.
    """
    from workbench.analysis.decisions.squeeze import Squeeze, tabulate_stops
    from workbench.analysis.decisions.squeeze_tasks import build_there_steps
    from workbench.jobs import run_steps
    from workbench.models import open_model

    squeeze = Squeeze(open_model(model), seed=seed)
    missing = [stop.recipe for stop in squeeze.stops if squeeze.find(stop) is None]
    announce_stops(squeeze.model, missing, squeeze.tokens, squeeze.evaluation)
    with open_workers(cluster, workers) as connected, show_progress("building the stops", quiet=as_json) as report:
        steps = squeeze.steps() if connected is None else build_there_steps(squeeze, connected)
        built = run_steps(steps, lambda step: report(step.fraction, 1))
    rows = [
        {
            "recipe": squeezed.stop.preset,
            **{name: value for name, value in asdict(squeezed).items() if name != "stop"},
            "folder": str(squeeze.folder(squeezed.stop)),
        }
        for squeezed in built
    ]
    text = format_table(tabulate_stops(built)[STOP_COLUMNS], folds="recipe")
    folders = dict.fromkeys(squeeze.folder(squeezed.stop).parent for squeezed in built if not squeezed.stop.is_original)
    where = f"saved models in {', '.join(map(str, folders))}" if folders else ""
    emit_page(
        {"model": model, "seed": seed, "stops": rows},
        as_json=as_json,
        text=f"{text}\n\n{where}".rstrip(),
    )
