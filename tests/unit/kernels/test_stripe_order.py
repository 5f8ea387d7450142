"""Codes and signs reach the order of stripes as plain numpy puts them there."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.kernels.matmul.numba.lut.sign_matmul import STRIPE_ROWS
from workbench.kernels.matmul.numba.lut.stripe_layout import compute_chunk_edges
from workbench.kernels.matmul.numba.lut.stripe_order import arrange_codes, arrange_signs
from workbench.kernels.packing import bitpack


def arrange_by_numpy(signs: np.ndarray, edges: np.ndarray, abreast: int) -> np.ndarray:
    """Bytes `[planes, rows, steps]` as `[stripe][chunk][plane][step][64]`, each axis moved by itself."""
    planes, rows, steps = signs.shape
    full = np.pad(signs, ((0, 0), (0, -rows % STRIPE_ROWS), (0, edges[-1] - steps)))
    stripes = full.reshape(planes, -1, STRIPE_ROWS, edges[-1] // abreast, abreast).transpose(1, 0, 3, 2, 4)
    if abreast == 1:
        stripes = stripes.reshape(*stripes.shape[:3], 2, STRIPE_ROWS // 2).swapaxes(3, 4)
    parts = [
        stripes[:, :, begin // abreast : end // abreast].reshape(len(stripes), -1) for begin, end in itertools.pairwise(edges)
    ]
    return np.concatenate(parts, 1)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, int, np.ndarray, int]:
    """Codes `[rows, cols]`, their bits, the edges of chunks and the steps that lie side by side."""
    rows, steps, bits = draw(st.integers(1, 150)), draw(st.integers(1, 40)), draw(st.integers(1, 8))
    abreast = draw(st.sampled_from([1, 4]))
    span = abreast * draw(st.integers(1, 12))
    edges = compute_chunk_edges(-(-steps // abreast) * abreast, span, min(bits, 4), abreast)
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    return random.integers(0, 1 << bits, (rows, 8 * steps)), bits, edges, abreast


@settings(deadline=None)  # the first call compiles
@given(cases())
def test_codes_and_signs(case: tuple[np.ndarray, int, np.ndarray, int]) -> None:
    codes, bits, edges, abreast = case
    signs = np.stack([np.packbits(codes >> bit & 1, axis=1, bitorder="little") for bit in reversed(range(bits))])
    expected = arrange_by_numpy(signs, edges, abreast)
    stream = bitpack.pack(torch.from_numpy(codes), bits).numpy()
    from_codes, from_signs = np.zeros_like(expected), np.zeros_like(expected)
    arrange_codes(stream, (len(codes), codes.shape[1] // 8, bits), edges, abreast, from_codes)
    arrange_signs(signs, edges, abreast, from_signs)
    assert np.array_equal(from_codes, expected)
    assert np.array_equal(from_signs, expected)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_rows_and_steps_that_fill_a_stripe_are_zero(bits: int) -> None:
    edges = compute_chunk_edges(8, 8, 1, 4)
    codes = torch.full((3, 40), (1 << bits) - 1)
    out = np.zeros((1, 64 * 8 * bits), np.uint8)
    arrange_codes(bitpack.pack(codes, bits).numpy(), (3, 5, bits), edges, 4, out)
    assert int((out == 255).sum()) == 3 * 5 * bits
    assert int((out == 0).sum()) == out.size - 3 * 5 * bits
