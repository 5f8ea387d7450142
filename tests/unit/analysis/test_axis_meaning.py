"""A mark follows what it stands for: the residual stream through all layers, neurons and values inside their block."""

import pytest

from workbench.analysis.weights.axis_meaning import Carried, carry_marks
from workbench.models.layers import Layer

SIZES = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (128, 64),
    "mlp.up_proj": (128, 64),
    "mlp.down_proj": (64, 128),
}


def layer(block: int, matrix: str, rows: int = 0) -> Layer:
    """A layer of a small Llama whose heads share values."""
    tall, wide = SIZES[matrix]
    name = f"model.layers.{block}.{matrix}"
    return Layer(name, block, matrix, rows or tall, wide, "float32", f"{name}.weight", False)


@pytest.mark.parametrize(
    ("before", "side", "after", "there"),
    [
        ((0, "self_attn.q_proj"), "channels", (5, "mlp.up_proj"), "channels"),
        ((0, "self_attn.q_proj"), "channels", (0, "self_attn.o_proj"), "rows"),
        ((2, "mlp.down_proj"), "rows", (3, "self_attn.k_proj"), "channels"),
        ((2, "mlp.down_proj"), "rows", (0, "self_attn.o_proj"), "rows"),
        ((1, "mlp.gate_proj"), "rows", (1, "mlp.down_proj"), "channels"),
        ((1, "mlp.gate_proj"), "rows", (1, "mlp.up_proj"), "rows"),
        ((1, "mlp.gate_proj"), "rows", (2, "mlp.down_proj"), None),
        ((0, "self_attn.q_proj"), "rows", (0, "self_attn.k_proj"), None),
        ((0, "self_attn.v_proj"), "rows", (0, "self_attn.o_proj"), None),
        ((0, "mlp.down_proj"), "channels", (0, "self_attn.q_proj"), None),
    ],
    ids=str,
)
def test_marks_go_where_they_mean_the_same(before: tuple[int, str], side: str, after: tuple[int, str], there: str | None) -> None:
    marks = {"channels": (), "rows": ()} | {side: (3, 17)}
    found = carry_marks(layer(*before), layer(*after), marks)
    assert (found.channels, found.rows) == (((3, 17), ()) if there == "channels" else ((), (3, 17)) if there else ((), ()))
    assert ("stay marked" in found.words) == (there is not None)
    assert ("no longer marked" in found.words) == (there is None)


def test_values_are_the_columns_of_what_reads_them_where_no_heads_share_them() -> None:
    before = layer(0, "self_attn.v_proj", rows=64)
    assert carry_marks(before, layer(0, "self_attn.o_proj"), {"channels": (), "rows": (5,)}).channels == (5,)


def test_both_sides_are_told_of() -> None:
    found = carry_marks(layer(0, "mlp.down_proj"), layer(0, "self_attn.q_proj"), {"channels": (100,), "rows": tuple(range(9))})
    assert found == Carried(
        tuple(range(9)),
        (),
        "Channels 100 of block 0 · down_proj have another meaning in block 0 · q_proj: they are no longer marked. "
        "Rows 0, 1, 2, 3, 4, 5 and 3 more of block 0 · down_proj are channels of the residual stream and stay marked, here as "
        "channels.",
    )


def test_in_a_family_of_other_matrices_nothing_is_carried() -> None:
    first, second = (Layer(f"h.{i}.attn.c_attn", i, "attn.c_attn", 192, 64, "float32", "", True) for i in (0, 1))
    assert carry_marks(first, second, {"channels": (3,), "rows": ()}).channels == ()
