"""Calibration with the text divided among workers: second moments are sums over tokens, so that the parts' sums add up.

The text is divided in the same way for any number of workers, and the sums are added in its order: the result is the same bit
for bit on one worker or many. It differs from that of `wb.calibrate`, which adds window by window, by the order of additions in
float64 (float32 for layers with more than 4,096 inputs).
"""

from collections.abc import Generator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.atomic import discard
from workbench.calibration import (
    DEFAULT_TOKENS,
    CalibrationStats,
    Source,
    calibrate,
    deserialize_stats,
    iterate_windows,
    serialize_stats,
)
from workbench.cluster.connection import Cluster
from workbench.cluster.task_inputs import describe_model, open_described_model, read_shared_text, share_text
from workbench.cluster.task_map import Task, TaskProgress, map_tasks_steps
from workbench.errors import ClusterError, ModelError
from workbench.input_sums import Collector, LayerStats
from workbench.jobs import run_steps
from workbench.models.text import Text
from workbench.moment_sums import compute_symmetric_mean
from workbench.nonfinite import count_nonfinite
from workbench.store import Store, compute_key

if TYPE_CHECKING:
    from workbench.models import ModelHandle

VERSION, PARTS = 1, 16  # that a text is divided into, whatever the number of workers

Sums = dict[str, Tensor]  # moment [cols, cols], total [cols], absmax [cols], tokens [1] of one input


def calibrate_in_parts(
    model: "ModelHandle",
    text: Text,
    *,
    tokens: int = DEFAULT_TOKENS,
    seed: int = 0,
    store: Store | None = None,
    cluster: Cluster | None = None,
) -> CalibrationStats:
    """Measure the inputs of all layers of the blocks on a text, whose parts are read by the workers of a cluster.

    Args:
        model: A model from `wb.open_model` that fits into the memory of each worker.
        text: A text from `wb.text`.
        tokens: How many tokens to read; all of a shorter text.
        seed: Draws the order of the documents.
        store: Where parts and statistics are found, and new ones are kept; the user's store when absent.
        cluster: Where to work, from `open_cluster`; here, on one thread, when absent.

    Returns:
        Statistics as `wb.calibrate` gives them, equal to its own up to the rounding of sums in float64.

    Raises:
        ModelError: For inputs that are not finite.
        ClusterError: For a model that no other process can open, and where the cluster goes away.

    Example:
        >>> import tempfile
        >>> import workbench as wb
        >>> from workbench.cluster.calibration import calibrate_in_parts
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stats = calibrate_in_parts(wb.open_model("builtin"), wb.text("calibration"), tokens=64, store=wb.Store(folder))
        >>> len(stats), stats.tokens
        (42, 64)
    """
    return run_steps(calibrate_steps(model, text, tokens=tokens, seed=seed, store=store or Store(), cluster=cluster))


def calibrate_steps(
    model: "ModelHandle", text: Text, *, tokens: int, seed: int, store: Store, cluster: Cluster | None
) -> Generator[TaskProgress, None, CalibrationStats]:
    """The same as a generator; a model that streams is read block by block here, since its sums do not fit into the store."""
    if model.streams or model.in_memory or model.is_rewritten:
        return calibrate(model, text, tokens=tokens, seed=seed, store=store)
    key = compute_key("calibration in parts", VERSION, PARTS, model.fingerprint, text.fingerprint, tokens, seed)
    if (entry := store.get(key)) is not None:
        return deserialize_stats(entry)
    windows = list(iterate_windows(model, text, tokens, seed))
    tasks = _describe_parts(model, text, tokens, seed, len(windows), store)
    yield from map_tasks_steps(measure_part, tasks, store, cluster)
    read = sum(window.shape[1] for window in windows)
    stats = _add_parts(model, tasks, store, Source(text.name, text.fingerprint, read, seed))
    what = f"{model.source}: {len(stats)} layers on {read:,} tokens of {text.name}, in parts"
    store.put(key, *serialize_stats(stats), kind="calibration", what=what)
    for task in tasks:
        discard(store.path(task.key))
        discard(store.path(_make_sums_key(task.key)))
    return stats


def _describe_parts(model: "ModelHandle", text: Text, tokens: int, seed: int, windows: int, store: Store) -> list[Task]:
    """A task for each part of the text."""
    described, shared = describe_model(model), share_text(text, store)
    bounds = [round(windows * part / min(PARTS, windows)) for part in range(min(PARTS, windows) + 1)]
    tasks = []
    for start, stop in pairwise(bounds):
        facts = {"model": described, "text": shared, "tokens": tokens, "seed": seed, "start": start, "stop": stop}
        key = compute_key("part of a calibration", VERSION, described["fingerprint"], shared, tokens, seed, start, stop)
        what = f"windows {start} to {stop} of {text.name}"
        tasks.append(Task(key, {**facts, "sums": _make_sums_key(key)}, "calibration part", what))
    return tasks


def _make_sums_key(key: str) -> str:
    """Where the sums of a part lie, beside the facts of its task."""
    return compute_key("sums", key)


def measure_part(arguments: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """The sums of one part of the text, which go into the store; returns by layer the number of its input among them."""
    model = open_described_model(arguments["model"])
    windows = list(iterate_windows(model, read_shared_text(arguments["text"], store), arguments["tokens"], arguments["seed"]))
    collector, names = Collector(), model.layer_names
    with torch.no_grad(), collector.watching({name: model.module.get_submodule(name) for name in names}):
        for window in windows[arguments["start"] : arguments["stop"]]:
            model.run(window)
    numbers = {leader: number for number, leader in enumerate(collector.sums)}
    tensors: dict[str, Tensor] = {}
    for leader, sums in collector.sums.items():
        sums.settle()
        facts = {"moment": sums.moment, "total": sums.total, "absmax": sums.absmax, "tokens": torch.tensor([sums.tokens])}
        tensors |= {f"{numbers[leader]}.{name}": tensor for name, tensor in facts.items()}
    store.put(arguments["sums"], tensors, kind="calibration part", what=f"sums of {len(numbers)} inputs")
    return {"layers": {name: numbers[collector.leader[name]] for name in names if name in collector.leader}}


def _add_parts(model: "ModelHandle", tasks: Sequence[Task], store: Store, source: Source) -> CalibrationStats:
    """The statistics of all parts, added in the order of the text; layers that read the same in every part share an object."""
    totals: dict[str, Sums] = {}
    groups = _group_layers(model, [_read_layers(task, store) for task in tasks])
    for task in tasks:
        entry = store.get(task.arguments["sums"])
        if entry is None:
            raise _describe_missing_part(task, store)
        layers = _read_layers(task, store)
        for leader in groups:
            if leader in layers:
                begin = f"{layers[leader]}."
                part = {name.removeprefix(begin): value for name, value in entry.tensors.items() if name.startswith(begin)}
                totals[leader] = _add_sums(totals[leader], part) if leader in totals else part
    measured: dict[str, LayerStats] = {}
    for leader, names in groups.items():
        if leader in totals and int(totals[leader]["tokens"]):
            measured |= dict.fromkeys(names, _compute_stats(leader, totals.pop(leader)))
    unreached = {name: model.layer(name).cols for name in model.layer_names if name not in measured}
    return CalibrationStats({name: measured[name] for name in model.layer_names if name in measured}, [source], unreached)


def _group_layers(model: "ModelHandle", parts: Sequence[Mapping[str, int]]) -> dict[str, list[str]]:
    """Layers that read the same input in every part, by the first of them."""
    groups: dict[tuple[int | None, ...], list[str]] = {}
    for name in model.layer_names:
        groups.setdefault(tuple(part.get(name) for part in parts), []).append(name)
    return {names[0]: names for names in groups.values()}


def _read_layers(task: Task, store: Store) -> dict[str, int]:
    entry = store.get(task.key)
    if entry is None:
        raise _describe_missing_part(task, store)
    return dict(entry.facts["layers"])


def _describe_missing_part(task: Task, store: Store) -> ClusterError:
    return ClusterError(
        f"the sums of {task.what} are not in the cache folder {store.folder}: the workers' folder of this name is on "
        f"another disk, or it is full; set WORKBENCH_CACHE to a folder that all machines share."
    )


def _add_sums(total: Sums, part: Sums) -> Sums:
    """Two parts as one."""
    added = {name: total[name] + part[name] for name in ("moment", "total", "tokens")}
    return {**added, "absmax": torch.maximum(total["absmax"], part["absmax"])}


def _compute_stats(layer: str, sums: Sums) -> LayerStats:
    """Sums as means; the moment exactly symmetric."""
    tokens = int(sums["tokens"])
    moment = compute_symmetric_mean(sums["moment"], tokens)
    if count_nonfinite(moment):
        raise ModelError(f"the inputs of layer {layer!r} are not finite; the model overflows on this text.")
    return LayerStats(moment, (sums["total"] / tokens).float(), sums["absmax"], tokens)
