"""Which n of m are kept: round trips, and as few bits as the number of choices needs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.kernels.packing import n_of_m


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_choices_return_as_they_were(data: st.DataObject) -> None:
    m = data.draw(st.integers(1, 12))
    n = data.draw(st.integers(1, m))
    rows, cols = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 50))
    score = torch.rand(rows, cols, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 999))))
    chosen = torch.zeros(rows, cols, dtype=torch.bool)
    for start in range(0, cols, m):
        group = score[:, start : start + m]
        best = group.argsort(1)[:, : min(n, group.shape[1])] + start
        chosen.scatter_(1, best, value=True)
    stream = n_of_m.pack(chosen, n, m)
    assert torch.equal(n_of_m.unpack(stream, n, m, rows, cols), chosen)
    assert stream.numel() == math.ceil(rows * math.ceil(cols / m) * n_of_m.compute_choice_width(n, m) / 8)


@pytest.mark.parametrize(("n", "m", "bits"), [(4, 8, 7), (6, 8, 5), (2, 4, 3), (1, 8, 3), (1, 2, 1)])
def test_a_choice_takes_the_bits_of_the_number_of_choices(n: int, m: int, bits: int) -> None:
    assert n_of_m.compute_choice_width(n, m) == bits
    assert len(n_of_m.list_patterns(n, m)) == math.comb(m, n)
