"""Formats that arrange other matrices, against the same written out in plain torch."""

import pytest
import torch
from torch import Tensor

from workbench.errors import ShapeError
from workbench.kernels import formats
from workbench.kernels.formats.arranged import fourier, invert_fourier
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed, build_ledger


def dense(x: Tensor) -> Packed:
    return Packed("dense", *x.shape, {"weight": x})


def drawn(rows: int, cols: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))


def test_transposed() -> None:
    x = drawn(3, 5)
    packed = Packed("transposed", 5, 3, children=(dense(x),))
    torch.testing.assert_close(formats.decode(packed), x.T)
    torch.testing.assert_close(formats.linear(torch.eye(3), packed), x)


def test_rows_come_back_in_their_places() -> None:
    first, second = drawn(2, 4, 1), drawn(3, 4, 2)
    owner = torch.tensor([1, 0, 1, 1, 0])
    packed = Packed("rows", 5, 4, {"map": bitpack.pack(owner, 1)}, children=(dense(first), dense(second)))
    expected = torch.stack([second[0], first[0], second[1], second[2], first[1]])
    torch.testing.assert_close(formats.decode(packed), expected)
    assert build_ledger(packed, 1.0).entries[0].why == "which coder owns which row"


def test_offset_by_groups() -> None:
    x, offset = drawn(2, 5), torch.tensor([[1.0, 2.0], [3.0, 4.0]]).half()
    packed = Packed("offset", 2, 5, {"offset": offset}, {"span": 3}, (dense(x),))
    expected = x + torch.tensor([[1.0, 1, 1, 2, 2], [3.0, 3, 3, 4, 4]])
    torch.testing.assert_close(formats.decode(packed), expected)


@pytest.mark.parametrize("cols", [1, 2, 3, 7, 8, 33, 128])
def test_fourier_is_orthonormal_with_as_many_real_numbers(cols: int) -> None:
    unit = torch.eye(cols)
    f = fourier(unit)
    assert f.shape == (cols, cols)
    torch.testing.assert_close(f @ f.T, unit, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(invert_fourier(f), unit, rtol=1e-5, atol=1e-6)


def test_fourier_is_the_spectrum() -> None:
    x = drawn(2, 8)
    spectrum = torch.fft.fft(x.double(), norm="ortho")
    expected = torch.cat(
        [spectrum.real[:, :1], 2**0.5 * spectrum.real[:, 1:4], spectrum.real[:, 4:5], 2**0.5 * spectrum.imag[:, 1:4]], 1
    )
    torch.testing.assert_close(fourier(x).double(), expected, rtol=1e-5, atol=1e-6)


def test_fourier_of_the_input_is_that_of_the_matrix() -> None:
    w, x = drawn(4, 6, 1), drawn(2, 6, 2)
    packed = Packed("fourier", 4, 6, children=(dense(fourier(w)),))
    torch.testing.assert_close(formats.decode(packed), w, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(formats.linear(x, packed), x @ w.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("format", ["transposed", "rows", "offset"])
def test_whole_matrices_are_not_masked(format: str) -> None:
    x = dense(drawn(2, 2))
    tensors = {"map": bitpack.pack(torch.tensor([0, 1]), 1)} if format == "rows" else {}
    with pytest.raises(ShapeError, match=f"format '{format}' holds whole matrices and cannot be masked"):
        formats.decode(Packed(format, 2, 2, tensors, children=(x, x)), torch.ones(2, 2, dtype=torch.bool))
