"""The stops of a squeeze, quantized by the workers of a cluster, each a task; what is measured of them is measured here."""

from collections.abc import Generator, Mapping
from dataclasses import asdict
from typing import Any

from workbench.analysis.decisions.squeeze import Squeeze, Squeezed, SqueezeStep
from workbench.analysis.decisions.stops import Stop
from workbench.cluster.connection import Cluster
from workbench.cluster.task_inputs import describe_model, open_described_model, read_shared_text, share_text
from workbench.cluster.task_map import Task, TaskProgress, map_tasks_steps
from workbench.jobs import map_steps, run_steps
from workbench.store import Store, compute_key

QUANTIZING = 0.8  # share of the time that the stops take; the others are measured, which other work would falsify


def build_there_steps(squeeze: Squeeze, cluster: Cluster) -> Generator[SqueezeStep, None, list[Squeezed]]:
    """Build what is missing of a squeeze: its stops are quantized on the cluster, then measured here, one after the other.

    Args:
        squeeze: What to build; its store's folder is the workers' too.
        cluster: From `workbench.cluster.open_cluster`.

    Yields:
        A SqueezeStep whenever something is done.

    Returns:
        All stops that are built.
    """
    missing = [stop for stop in squeeze.stops if not stop.is_original and squeeze.find(stop) is None]
    squeeze.check_store()
    described, calibration = describe_model(squeeze.model), share_text(squeeze.calibration, squeeze.store)
    tasks = []
    for number, stop in enumerate(missing):
        arguments = {"model": described, "calibration": calibration, "tokens": squeeze.tokens, "seed": squeeze.seed}
        key = compute_key("quantized stop", squeeze.key(stop))
        what = f"{squeeze.model.source} by {stop.preset}"
        tasks.append(Task(key, {**arguments, "stop": asdict(stop), "number": number}, "stop", what))

    def tell(step: TaskProgress) -> SqueezeStep:
        stop = missing[0 if step.newest is None else step.newest.arguments["number"]]
        return SqueezeStep(stop, "quantizing", QUANTIZING * step.fraction)

    if tasks:
        yield from map_steps(map_tasks_steps(build_task_stop, tasks, squeeze.store, cluster), tell)

    def continue_from(step: SqueezeStep) -> SqueezeStep:
        return SqueezeStep(step.stop, step.doing, QUANTIZING + (1 - QUANTIZING) * step.fraction)

    return (yield from map_steps(squeeze.steps(), continue_from if tasks else lambda step: step))


def build_task_stop(arguments: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """Quantize and save one stop, in any process."""
    stop, model = Stop(**arguments["stop"]), open_described_model(arguments["model"])
    calibration = read_shared_text(arguments["calibration"], store)
    options = {"calibration": calibration, "tokens": arguments["tokens"], "seed": arguments["seed"], "threads": 1}
    squeeze = Squeeze(model, store, stops=[stop], **options)
    run_steps(squeeze.store_steps(stop))
    return {"stop": stop.preset}
