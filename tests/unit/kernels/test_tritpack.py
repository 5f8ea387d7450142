"""Trit streams: five to a byte, in both directions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import ShapeError
from workbench.kernels.packing import tritpack

TRITS = st.lists(st.integers(-1, 1), max_size=40)


@given(TRITS)
def test_unpack_inverts_pack(trits: list[int]) -> None:
    stream = tritpack.pack(torch.tensor(trits, dtype=torch.int64))
    assert stream.numel() == -(-len(trits) // 5)
    assert tritpack.unpack(stream, len(trits)).tolist() == trits


@given(TRITS.filter(bool))
def test_a_byte_is_a_number_in_base_3(trits: list[int]) -> None:
    padded = trits + [0] * (-len(trits) % 5)
    expected = [sum((trit + 1) * 3**i for i, trit in enumerate(padded[at : at + 5])) for at in range(0, len(padded), 5)]
    assert tritpack.pack(torch.tensor(trits)).tolist() == expected


def test_other_numbers_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"trits from -2 to 1; they must be −1, 0 or \+1"):
        tritpack.pack(torch.tensor([1, -2, 0]))


def test_a_short_stream_is_refused() -> None:
    with pytest.raises(ShapeError, match="11 trits need 3 bytes; the stream has 2"):
        tritpack.unpack(torch.zeros(2, dtype=torch.uint8), 11)
