"""Layers as people say them: `block 3 · down_proj`."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pandas as pd

from workbench.models.layers import split_name

OUTSIDE = "outside"  # the row of layers that belong to no block, such as the output head


def label_layer(layer: pd.Series) -> str:
    """A layer as people say it: `block 3 · down_proj`."""
    short = shorten_matrix_name(layer["matrix"])
    row = label_block(layer["block"])
    return short if row == OUTSIDE else f"block {row} · {short}"


def label_layer_name(name: str) -> str:
    """The full name of a layer as people say it."""
    block, matrix = split_name(name) or (None, name)
    return label_layer(pd.Series({"block": block, "matrix": matrix}))


def label_block(block: Any) -> str:
    """The label of a block's row; layers without a block share one row."""
    return OUTSIDE if block is None or pd.isna(block) or block < 0 else str(int(block))


def shorten_matrix_name(matrix: str) -> str:
    """The last word of a matrix name, and an expert's number: `mlp.down_proj` is `down_proj`, `experts.w1.3` is `w1.3`."""
    words = matrix.split(".")
    return ".".join(words[-2:] if words[-1].isdecimal() else words[-1:])


def label_matrices(matrices: Iterable[str]) -> dict[str, str]:
    """One label a matrix, short where no other matrix has the same: a column must not hide another one's layers."""
    names = list(dict.fromkeys(matrices))
    counts = Counter(map(shorten_matrix_name, names))
    return {name: shorten_matrix_name(name) if counts[shorten_matrix_name(name)] == 1 else name for name in names}
