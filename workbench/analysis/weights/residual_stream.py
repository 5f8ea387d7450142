"""A channel of the residual stream through the whole model: layers that write it, its gain and size, and layers that read it.

Channel c is the same number in every layer that touches the stream: row c of what writes it (o_proj, down_proj; column c of the
embedding), entry c of every norm's gain, column c of what reads it (q, k, v, gate, up, head). Only vectors are kept, no matrix.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.weights.weight_sketch import Sketch, iterate_row_blocks
from workbench.input_sums import LayerStats
from workbench.models import architecture
from workbench.models.anatomy import Anatomy, read_anatomy
from workbench.models.handle import ModelHandle

READERS = {"attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "mlp": ("mlp.gate_proj", "mlp.up_proj")}
WRITERS = {"attention": "self_attn.o_proj", "mlp": "mlp.down_proj"}
NORMS = {"attention": "input_layernorm", "mlp": "post_attention_layernorm"}
KINDS = ("written", "gain", "input_size", "read")

Sketches = Callable[[str], Sketch]


@dataclass(frozen=True)
class Step:
    """One stop of the residual stream by module names: its norm, what reads the stream behind it, what writes to it."""

    label: str
    norm: str | None
    readers: tuple[str, ...]
    writer: str | None


@dataclass(frozen=True)
class Stream:
    """Vectors over all channels at every stop, `[steps, width]` each, over the average channel (root mean square 1).

    `written` and `read` are norms of rows and columns of weights, `gain` magnitudes of a norm's gains, `input_size` the size of
    what the readers see on the calibration text. NaN where a stop has no such part, or nothing is known of it.
    """

    steps: tuple[Step, ...]
    written: np.ndarray
    gain: np.ndarray
    input_size: np.ndarray
    read: np.ndarray


def read_model_anatomy(model: ModelHandle) -> Anatomy:
    """The anatomy of an opened model, from its configuration alone; AnatomyError for families of another shape."""
    return read_anatomy(architecture.build_split_module(model.config), str(model.source))


def _list_stream_steps(structure: Anatomy) -> list[Step]:
    """The stops of the stream, in order: embedding, both halves of every block, output head."""
    stops = [Step("embedding", None, (), structure.embedding)]
    for number, block in enumerate(structure.blocks):
        for half, readers in READERS.items():
            names = tuple(map(block.part, readers))
            stops.append(Step(f"{number} · {half}", block.part(NORMS[half]), names, block.part(WRITERS[half])))
    return [*stops, Step("head", structure.norm, (structure.head,), None)]


def build_stream(model: ModelHandle, sketch: Sketches, stats: Mapping[str, LayerStats] | None = None) -> Stream:
    """The whole stream of a model, from the sketches of its layers; AnatomyError for families whose stream is not known."""
    structure = read_model_anatomy(model)
    stops, layers = _list_stream_steps(structure), set(model.layer_names)
    outside = {name: _sum_column_energy(model.tensor(f"{name}.weight")) for name in (structure.embedding, structure.head)}
    nothing = np.full(structure.width, np.nan)

    def reads(stop: Step) -> np.ndarray:
        return sum(
            (sketch(name).col_energy if name in layers else outside[name] for name in stop.readers), np.zeros(structure.width)
        )

    def writes(stop: Step) -> np.ndarray:
        assert stop.writer is not None
        return sketch(stop.writer).row_energy if stop.writer in layers else outside[stop.writer]

    def gains(stop: Step) -> np.ndarray:
        return model.tensor(f"{stop.norm}.weight").double().square().numpy()

    def inputs(stop: Step) -> np.ndarray:
        statistics = None if stats is None else next((stats[name] for name in stop.readers if name in stats), None)
        return nothing if statistics is None else statistics.moment.diagonal().double().numpy()

    return Stream(
        tuple(stops),
        written=np.stack([_normalize_energy(writes(stop)) if stop.writer else nothing for stop in stops]),
        gain=np.stack([_normalize_energy(gains(stop)) if stop.norm else nothing for stop in stops]),
        input_size=np.stack([_normalize_energy(inputs(stop)) if stop.readers else nothing for stop in stops]),
        read=np.stack([_normalize_energy(reads(stop)) if stop.readers else nothing for stop in stops]),
    )


def _normalize_energy(energy: np.ndarray) -> np.ndarray:
    """Roots of energies over their root mean square; zeros where there is no energy at all."""
    mean = float(energy.mean())
    return np.sqrt(np.maximum(energy, 0) / mean) if mean != 0 else np.zeros(len(energy))


def _sum_column_energy(weight: Tensor) -> np.ndarray:
    """Sums of squares of the columns of `weight [rows, cols]`, float64, a block of rows at a time."""
    return torch.stack([block.square().sum(0) for block in iterate_row_blocks(weight)]).sum(0).numpy()


def tabulate_stream_channels(residual: Stream, channels: Sequence[int]) -> pd.DataFrame:
    """One row for each stop and chosen channel: stop, channel, written, gain, input_size, read."""
    rows = [
        (stop.label, channel, *(float(getattr(residual, kind)[position, channel]) for kind in KINDS))
        for channel in channels
        for position, stop in enumerate(residual.steps)
    ]
    return pd.DataFrame(rows, columns=["stop", "channel", *KINDS])


def is_stream_reader(structure: Anatomy, layer: str) -> bool:
    """Whether the columns of this layer are channels of the residual stream."""
    return any(layer in step.readers for step in _list_stream_steps(structure))


def find_inner_sources(model: ModelHandle, structure: Anatomy, layer: str) -> dict[str, Callable[[int], int]]:
    """Which layers make the inputs of one that does not read the stream, each with the row that makes input j.

    Of down_proj, neuron j is row j of gate and up; of o_proj, entry j of the heads is a row of v, which groups of heads share.
    """
    owner = next(block for block in structure.blocks if layer.startswith(f"{block.name}."))
    if layer == owner.part(WRITERS["mlp"]):
        return {name: lambda j: j for name in map(owner.part, READERS["mlp"])}
    value, width = owner.part("self_attn.v_proj"), owner.head_dim
    together = model.layer(layer).cols // model.layer(value).rows
    return {value: lambda j: j // width // together * width + j % width}


def tabulate_inner_channels(
    model: ModelHandle, structure: Anatomy, layer: str, channels: Sequence[int], sketch: Sketches
) -> pd.DataFrame:
    """Inner channels of down_proj or o_proj: channel, name (the layer), part ("row" or "column"), index, times (the average)."""
    column_sizes = _normalize_energy(sketch(layer).col_energy)
    sources = find_inner_sources(model, structure, layer)
    row_sizes = {name: _normalize_energy(sketch(name).row_energy) for name in sources}
    rows: list[tuple[int, str, str, int, float]] = []
    for channel in channels:
        rows += [(channel, name, "row", row(channel), float(row_sizes[name][row(channel)])) for name, row in sources.items()]
        rows.append((channel, layer, "column", channel, float(column_sizes[channel])))
    return pd.DataFrame(rows, columns=["channel", "name", "part", "index", "times"])
