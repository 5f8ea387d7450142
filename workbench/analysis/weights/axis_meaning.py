"""The meaning of rows and columns of a layer, and how marks carry over from one layer to another.

The residual stream's channels are columns of what reads it and rows of what writes to it; inside a block the rows of one layer
are the columns of the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.models.layers import Layer

MARK_KINDS = ("channels", "rows")
STREAM = "channels of the residual stream"
FEATURES = {
    "self_attn.q_proj": (STREAM, "queries"),
    "self_attn.k_proj": (STREAM, "keys"),
    "self_attn.v_proj": (STREAM, "values"),
    "self_attn.o_proj": ("values", STREAM),
    "mlp.gate_proj": (STREAM, "neurons of the MLP"),
    "mlp.up_proj": (STREAM, "neurons of the MLP"),
    "mlp.down_proj": ("neurons of the MLP", STREAM),
}
MAX_LISTED_MARKS = 6  # marks that are named one by one

Features = tuple[str, int, int | None]  # what they are, how many there are, and in which block alone


@dataclass(frozen=True)
class Carried:
    """Marks of one layer in another: `channels` and `rows` there, and what became of them in `words`, empty where none were."""

    channels: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    words: str = ""


def list_features(layer: Layer) -> dict[str, Features]:
    """What channels and rows of a layer are; empty for a layer of other families.

    Heads that share values have fewer of them than o_proj has columns, and then the two are not the same.
    """
    if layer.matrix not in FEATURES:
        return {}
    named = zip(MARK_KINDS, FEATURES[layer.matrix], (layer.cols, layer.rows), strict=True)
    return {side: (what, count, None if what == STREAM else layer.block) for side, what, count in named}


def carry_marks(before: Layer, after: Layer, marks: Mapping[str, tuple[int, ...]]) -> Carried:
    """What marks of `before`, by side, are in `after`."""
    old, new = list_features(before), list_features(after)
    by_kind: dict[str, tuple[int, ...]] = {}
    words = []
    for side in (side for side in MARK_KINDS if marks[side]):
        who = f"{side.capitalize()} {_format_marks(marks[side])} of {_format_layer_name(before)}"
        there = next((other for other in MARK_KINDS if side in old and new.get(other) == old[side]), None)
        if there is None:
            words.append(f"{who} have another meaning in {_format_layer_name(after)}: they are no longer marked.")
            continue
        by_kind[there] = marks[side]
        words.append(f"{who} are {old[side][0]} and stay marked{'' if there == side else f', here as {there}'}.")
    return Carried(by_kind.get("channels", ()), by_kind.get("rows", ()), " ".join(words))


def _format_layer_name(layer: Layer) -> str:
    """A layer in a few words."""
    return f"block {layer.block} · {layer.matrix.rpartition('.')[2]}"


def _format_marks(marks: tuple[int, ...]) -> str:
    """The first few marks, and how many more."""
    more = f" and {len(marks) - MAX_LISTED_MARKS} more" if len(marks) > MAX_LISTED_MARKS else ""
    return ", ".join(map(str, marks[:MAX_LISTED_MARKS])) + more
