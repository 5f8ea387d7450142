"""Blocks of GGUF, decoded weight by weight as the format is described, and by its own library where that is installed."""

import struct
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from workbench.exchange.writing.gguf_blocks import NAMES, TYPES, BlockType, choose_type, encode
from workbench.exchange.writing.grid_codes import GridCodes, read_grid
from workbench.kernels.formats.format import decode
from workbench.kernels.packing import bitpack, tritpack
from workbench.kernels.packing.packed import Packed
from workbench.models.handle import ModelHandle

KINDS = {kind.name: kind for kind in TYPES}
COLS = 512


def decode_block(kind: BlockType, data: bytes) -> list[float]:
    """The weights of one block."""
    if kind.name.startswith("TQ"):
        (d,) = struct.unpack("<e", data[-2:])
        return [d * trit for trit in (read_trit(kind.name, data, j) for j in range(256))]
    (d,) = struct.unpack("<e", data[:2])
    if kind.name == "Q1_0":
        return [d if data[2 + j // 8] >> j % 8 & 1 else -d for j in range(128)]
    if kind.name == "Q8_0":
        return [d * level for level in struct.unpack("<32b", data[2:])]
    body = data[4:] if kind.minimum else data[2:]
    fifth = int.from_bytes(body[:4], "little") if kind.high - kind.low == 31 else 0
    halves = body[4:] if kind.high - kind.low == 31 else body
    codes = [(halves[j % 16] >> 4 * (j // 16) & 15) + 16 * (fifth >> j & 1) for j in range(32)]
    m = struct.unpack("<e", data[2:4])[0] if kind.minimum else d * kind.low
    return [d * code + m for code in codes]


def read_trit(name: str, data: bytes, j: int) -> int:
    """Trit j of a block of 256."""
    if name == "TQ2_0":
        half, quarter, m = j // 128, j // 32 % 4, j % 32
        return (data[32 * half + m] >> 2 * quarter & 3) - 1
    if j < 160:
        byte, digit = data[j % 32], j // 32
    elif j < 240:
        byte, digit = data[32 + j % 16], (j - 160) // 16
    else:
        byte, digit = data[48 + j % 4], (j - 240) // 4
    return ((byte * 3**digit % 256) * 3 >> 8) - 1


def decode_rows(kind: BlockType, data: np.ndarray) -> torch.Tensor:
    """All rows of encoded blocks."""
    rows = [row.tobytes() for row in data]
    size = kind.nbytes
    return torch.tensor([[w for i in range(0, len(row), size) for w in decode_block(kind, row[i : i + size])] for row in rows])


def draw_grid(kind: BlockType, span: int, seed: int) -> GridCodes:
    """A random matrix of two rows that the type holds, every level in it."""
    random = torch.Generator().manual_seed(seed)
    groups = COLS // span
    scale = (torch.rand(2, groups, generator=random) + 0.5).half() * (1 - 2 * (seed % 2))
    if kind.block == 256:
        trits = torch.randint(-1, 2, (1, 2, COLS), generator=random).to(torch.int8)
        return GridCodes(
            Packed("ternary", 2, COLS, {"trits": tritpack.pack(trits), "scale": scale[None]}, {"planes": 1, "span": span})
        )
    if kind.name == "Q1_0":
        signs = bitpack.pack(torch.randint(2, (1, 2, COLS), generator=random), 1)
        return GridCodes(Packed("planes", 2, COLS, {"signs": signs, "scale": scale[None]}, {"planes": 1, "span": span}))
    bits = {15: 4, 31: 5, 255: 8}[kind.high - kind.low]
    codes = torch.arange(2 * COLS)[torch.randperm(2 * COLS, generator=random)].view(2, COLS) % (1 << bits)
    tensors = {"codes": bitpack.pack(codes, bits), "scale": scale}
    if kind.minimum:
        tensors["offset"] = torch.randint(0, 16, (2, groups), generator=random).half() / 2
    return GridCodes(Packed("uniform", 2, COLS, tensors, {"bits": bits, "span": span}))


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(NAMES), coarse=st.integers(0, 1), seed=st.integers(0, 1 << 30))
def test_every_type_holds_its_levels(name: str, coarse: int, seed: int) -> None:
    kind = KINDS[name]
    grid = draw_grid(kind, COLS if coarse else kind.block, seed)
    chosen = choose_type(grid, [name])
    assert chosen[0] is kind
    data = encode(grid, kind)
    assert data.shape == (2, COLS // kind.block * kind.nbytes)
    expected = decode(grid.packed)
    atol = 2**-8 if chosen[1] else 1e-5  # of a minimum that is rounded to fp16
    torch.testing.assert_close(decode_rows(kind, data), expected, atol=atol, rtol=0)
    if find_spec("gguf") is not None and name != "Q1_0":  # which its Python code does not decode
        import gguf

        library = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])
        torch.testing.assert_close(torch.from_numpy(library), expected, atol=atol, rtol=0)


def test_golden_blocks() -> None:
    """A scale of 0.5 and levels that count up, byte by byte."""
    codes = torch.arange(32)[None] % 16
    grid = GridCodes(
        Packed(
            "uniform", 1, 32, {"codes": bitpack.pack(codes, 4), "scale": torch.tensor([[0.5]]).half()}, {"bits": 4, "span": 32}
        )
    )
    assert encode(grid, KINDS["Q4_0"]).tobytes().hex() == "0038" + "00112233445566778899aabbccddeeff"
    assert encode(grid, KINDS["Q8_0"]).tobytes().hex() == "0038" + 2 * "f8f9fafbfcfdfeff0001020304050607"


def test_rows_in_another_order() -> None:
    grid = draw_grid(KINDS["Q4_0"], 32, 3)
    assert (encode(grid, KINDS["Q4_0"], torch.tensor([1, 0])) == encode(grid, KINDS["Q4_0"])[::-1]).all()


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        pytest.param(wb.recipe("rtn", bits=4, group=32, symmetric=True), "Q4_0", id="symmetric"),
        pytest.param(wb.recipe("rtn", bits=4, group=64), "Q5_0", id="whole-zeros"),
        pytest.param(wb.recipe("rtn", bits=2, group=0), "Q4_0", id="two-bits-a-row"),
        pytest.param(wb.recipe("rtn", bits=4, group=32, zero="real"), "Q4_1", id="minimum"),
        pytest.param(wb.recipe("rtn", bits=5, group=32, zero="real"), "Q5_1", id="minimum-of-five-bits"),
        pytest.param(wb.recipe("rtn", bits=8, symmetric=True), "Q8_0", id="eight-bits"),
        pytest.param(wb.recipe("ternary", group=256), "TQ1_0", id="ternary"),
        pytest.param(wb.recipe("ternary", group=128), "Q4_0", id="ternary-in-small-groups"),
        pytest.param(wb.recipe("binary", group=128, mean=False), "Q1_0", id="signs"),
        pytest.param(wb.recipe("binary", group=0, mean=False), "Q1_0", id="signs-a-row"),
        pytest.param(wb.recipe("rtn", bits=8), "levels from", id="eight-bits-with-zeros"),
        pytest.param(wb.recipe("rtn", bits=4, group=16), "groups of 16 in 768 columns are no blocks of 32", id="small-groups"),
        pytest.param(wb.recipe("binary"), "it stores a mean for each group", id="means"),
        pytest.param(wb.recipe("binary", planes=2), "it is a sum of 2 planes", id="planes"),
        pytest.param(
            wb.recipe("rtn", bits=4).replace(transform=wb.part("transform", "hadamard")), "in a rotated basis", id="rotated"
        ),
        pytest.param(wb.recipe("none"), "it is stored as dense", id="no-codes"),
    ],
)
def test_the_smallest_exact_type_or_why_there_is_none(builtin: ModelHandle, recipe: wb.Recipe, expected: str) -> None:
    layer = wb.quantize(builtin, "model.layers.0.mlp.down_proj", recipe)
    grid = read_grid(layer.packed)
    chosen = grid if isinstance(grid, str) else choose_type(grid)
    if isinstance(chosen, str):
        assert expected in chosen
        return
    kind, loss = chosen
    assert kind.name == expected
    assert bool(loss) == kind.minimum
    weights = decode_rows(kind, encode(grid, kind)[:8])
    torch.testing.assert_close(weights, layer.weight()[:8], atol=1e-3 if loss else 1e-6, rtol=0)
