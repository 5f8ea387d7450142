"""Energies of errors against float64, over more columns and rows than are multiplied at once."""

import pytest
import torch

from tests.battery.cases import correlated, gaussian
from workbench.quantizers.coding import BlockErrors
from workbench.quantizers.distance import MOMENT_COLUMNS, ROWS_AT_ONCE, compute_output_error


@pytest.mark.parametrize("cols", [1, MOMENT_COLUMNS, MOMENT_COLUMNS + 1, 2 * MOMENT_COLUMNS + 100])
def test_output_error_is_the_share_of_the_output_energy(cols: int) -> None:
    w, h = gaussian(ROWS_AT_ONCE + 9, cols), correlated(cols)
    error = 0.1 * gaussian(len(w), cols, 1)
    energies = [torch.einsum("ri,ij,rj->", rows.double(), h.double(), rows.double()).item() for rows in (error, w)]
    assert compute_output_error(w, w + error, h) == pytest.approx(energies[0] / energies[1], rel=1e-5)


def test_coded_columns_are_compared_once_in_any_order() -> None:
    w = gaussian(20, 12)
    current = w + 0.1 * gaussian(20, 12, 1)
    blocks = BlockErrors(w)
    for start, stop in [(0, 2), (2, 3), (3, 5), (8, 9), (9, 12)]:
        blocks.add(start, stop)
    columns = [0, 1, 2, 3, 4, 8, 9, 10, 11]
    expected = (current - w)[:, columns].double().square().sum() / w[:, columns].double().square().sum()
    assert blocks.relative_error(current) == pytest.approx(expected.item())
    assert blocks.coded == len(columns)
    blocks.add(5, 8)
    assert blocks.relative_error(current) == pytest.approx(((current - w).square().sum() / w.square().sum()).item())
