"""Low-rank corrections: the best ones there are, with a moment and without."""

import pytest
import torch

from tests.battery.cases import correlated, gaussian, quantize
from workbench import registry
from workbench.kernels import formats
from workbench.presets.preset import compose
from workbench.quantizers.curvature import damp_moment


def test_plain_is_the_truncated_svd() -> None:
    error = gaussian(20, 30)
    u, s, vt = torch.linalg.svd(error, full_matrices=False)
    found = formats.decode(registry.make("correction", "low-rank", rank=5).fit(error, None))
    torch.testing.assert_close(found, u[:, :5] * s[:5] @ vt[:5], rtol=1e-2, atol=1e-2)


def test_calibrated_gives_the_product_of_eigen_roots() -> None:
    """EoRA uses the eigen-root of H, here a Cholesky factor: any root gives the same correction."""
    error, h = gaussian(20, 30), correlated(30)
    values, vectors = torch.linalg.eigh(damp_moment(h, 0.001))
    root = vectors * values.sqrt()
    u, s, vt = torch.linalg.svd(error.double() @ root, full_matrices=False)
    expected = (u[:, :4] * s[:4] @ vt[:4]) @ torch.linalg.inv(root)
    found = formats.decode(registry.make("correction", "low-rank", rank=4).fit(error, h))
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("calibrated", [False, True], ids=["plain", "calibrated"])
def test_full_rank_takes_the_error_away(calibrated: bool) -> None:
    w, h = gaussian(16, 48), correlated(48) if calibrated else None
    recipe = compose(registry.make("coder", "sign"), correction=registry.make("correction", "low-rank", rank=1000))
    assert quantize(recipe, w, h).relative_error < 1e-5


def test_what_is_added_is_stored_and_counted() -> None:
    recipe = compose(registry.make("coder", "uniform", bits=2), correction=registry.make("correction", "low-rank", rank=3))
    result = quantize(recipe, gaussian(16, 48))
    bits = {entry.item: entry.bits for entry in result.ledger.entries}
    assert bits["1.low-rank left"] == 16 * 3 * 16
    assert bits["1.low-rank right"] == 3 * 48 * 16
    assert result.nominal_bits == 2
