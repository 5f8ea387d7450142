"""Bit streams: pack and unpack are inverse at every width and count, and take exactly the bytes they must."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import ShapeError
from workbench.kernels.packing import bitpack


@st.composite
def streams(draw: st.DrawFn) -> tuple[int, list[int]]:
    width = draw(st.integers(1, bitpack.MAX_WIDTH))
    return width, draw(st.lists(st.integers(0, (1 << width) - 1), max_size=70))


@given(streams())
def test_unpack_inverts_pack(stream: tuple[int, list[int]]) -> None:
    width, codes = stream
    packed = bitpack.pack(torch.tensor(codes, dtype=torch.int64), width)
    assert packed.numel() == -(-len(codes) * width // 8)
    assert bitpack.unpack(packed, width, len(codes)).tolist() == codes


@given(streams())
def test_the_stream_is_one_little_endian_number(stream: tuple[int, list[int]]) -> None:
    width, codes = stream
    whole = sum(code << (i * width) for i, code in enumerate(codes))
    expected = whole.to_bytes(-(-len(codes) * width // 8), "little")
    assert bytes(bitpack.pack(torch.tensor(codes, dtype=torch.int64), width).tolist()) == expected


def test_the_example_in_the_module() -> None:
    assert bitpack.pack(torch.tensor([5, 1, 6]), 3).tolist() == [0x8D, 0x01]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64], ids=str)
def test_codes_of_any_integer_type(dtype: torch.dtype) -> None:
    codes = torch.tensor([[1, 0, 1], [1, 1, 0]])
    assert bitpack.unpack(bitpack.pack(codes.to(dtype), 1), 1, 6).tolist() == codes.flatten().tolist()


def test_part_of_a_stream() -> None:
    assert bitpack.unpack(bitpack.pack(torch.arange(20), 5), 5, 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("width", [0, 25])
def test_widths_outside_the_range_are_refused(width: int) -> None:
    with pytest.raises(ShapeError, match=f"codes of {width} bits cannot be packed; use 1 to 24 bits"):
        bitpack.pack(torch.zeros(3, dtype=torch.int64), width)
    with pytest.raises(ShapeError, match=f"codes of {width} bits cannot be packed; use 1 to 24 bits"):
        bitpack.unpack(torch.zeros(3, dtype=torch.uint8), width, 3)


@pytest.mark.parametrize("code", [-1, 8])
def test_codes_that_do_not_fit_are_refused(code: int) -> None:
    with pytest.raises(ShapeError, match=r"do not fit 3 bits \(0 to 7\)"):
        bitpack.pack(torch.tensor([0, code, 1]), 3)


def test_a_short_stream_is_refused() -> None:
    with pytest.raises(ShapeError, match="17 codes of 4 bits need 9 bytes; the stream has 8"):
        bitpack.unpack(torch.zeros(8, dtype=torch.uint8), 4, 17)
