"""Known distortions E(q−w)²/E w² of standard normal weights, within 2 %.

Published or derived reference values for grids (groups of 128, min–max and best clip), sign and trit planes, vectors,
trellis (states of 12 bits) and binary codebooks;
the binary codebook's magnitude rows are upper bounds, as better training may go below them.
"""

import pytest
import torch

from workbench import registry
from workbench.jobs import run_steps
from workbench.presets.preset import compose
from workbench.quantizers.pipeline import quantize_layer

GRIDS = {
    (2, False, "none"): 0.254,
    (2, False, "mse"): 0.1319,
    (3, False, "none"): 0.0466,
    (3, False, "mse"): 0.0348,
    (4, False, "none"): 0.0101,
    (4, False, "mse"): 0.0090,
    (2, True, "none"): 0.590,
    (2, True, "mse"): 0.1319,
    (3, True, "none"): 0.0754,
    (3, True, "mse"): 0.0344,
    (4, True, "none"): 0.0138,
    (4, True, "mse"): 0.00934,
}
SIGNS = {
    "closed-form-row": (0.3634, {"sweeps": 0, "mean": False}),
    "closed-form-two-planes-128": (0.1286, {"planes": 2, "sweeps": 0, "mean": False, "scales": "group", "rescale": False}),
    "arb-row": (0.3634, {"mean": True}),
    "arb-row-column": (0.3634, {"scales": "row-column", "mean": False}),
    "one-plane-128": (0.3605, {"scales": "group", "mean": False}),
    "two-planes-128": (0.114, {"planes": 2, "scales": "group", "mean": False, "sweeps": 30}),
    "two-planes-row": (0.1175, {"planes": 2, "mean": False, "sweeps": 50}),
}
TERNARY = {
    "absmean-row": (0.263, {"rule": "absmean", "sweeps": 0, "rescale": False, "group": 0}),
    "best-row": (0.190, {"group": 0}),
    "best-128": (0.188, {}),
    "two-planes-128": (0.0276, {"planes": 2, "sweeps": 30}),
}
GROUPS = {(1, "joint"): 0.3634, (2, "joint"): 0.1177, (3, "joint"): 0.0586, (3, "double"): 0.059, (3, "greedy"): 0.0795}
FACTORS = {0.625: 0.575, 1.0: 0.377}  # ADMM after 200 sweeps, 256 × 256; upper bounds
HAMMING = {128: 0.610, 256: 0.545, 512: 0.484}
MAGNITUDE = {128: 0.472, 256: 0.421, 512: 0.382}
VECTORS = {(10, 256): 0.401, (8, 256): 0.3232, (4, 256): 0.0981, (2, 16): 0.1086, (1, 4): 0.1175}
TRELLIS = {(2, 1): 0.0737, (3, 1): 0.0197, (2, 2): 0.279}
PARITY = {(10, 1): 0.374, (5, 1): 0.396, (10, 3): 0.429, (20, 9): 0.506}  # measured here; 4^-bits bounds any code


def distortion(rows: int, cols: int, coder: str, **settings: object) -> float:
    """Relative error of one coder on normal weights, rounded to nearest."""
    w = torch.randn(rows, cols, generator=torch.Generator().manual_seed(0))
    return run_steps(quantize_layer(w, None, compose(registry.make("coder", coder, **settings)))).relative_error


@pytest.mark.parametrize(("bits", "symmetric", "clip"), GRIDS, ids=str)
def test_uniform_grids(bits: int, symmetric: bool, clip: str) -> None:
    found = distortion(512, 1024, "uniform", bits=bits, symmetric=symmetric, clip=clip, group=128)
    assert found == pytest.approx(GRIDS[bits, symmetric, clip], rel=0.02)


@pytest.mark.parametrize("name", SIGNS)
def test_sign_planes(name: str) -> None:
    golden, settings = SIGNS[name]
    assert distortion(512, 2048, "sign", **settings) == pytest.approx(golden, rel=0.02)


@pytest.mark.parametrize("name", TERNARY)
def test_ternary(name: str) -> None:
    golden, settings = TERNARY[name]
    assert distortion(512, 2048, "ternary", **settings) == pytest.approx(golden, rel=0.02)


@pytest.mark.parametrize(("groups", "search"), GROUPS, ids=str)
def test_magnitude_groups(groups: int, search: str) -> None:
    coder = registry.make("coder", "sign", mean=False, sweeps=0, rescale=False)
    split = registry.make("split", "groups", groups=groups, search=search, block=65536)
    w = torch.randn(512, 2048, generator=torch.Generator().manual_seed(0))
    found = run_steps(quantize_layer(w, None, compose(*[coder] * groups, split=split))).relative_error
    assert found == pytest.approx(GROUPS[groups, search], rel=0.02)


@pytest.mark.parametrize("bits", FACTORS)
def test_binary_factors(bits: float) -> None:
    found = distortion(256, 256, "binary-factors", bits=bits + 1e-3, sweeps=200)
    assert 0.95 * FACTORS[bits] < found <= FACTORS[bits]


@pytest.mark.parametrize("entries", HAMMING)
def test_binary_codebook_by_hamming_distance(entries: int) -> None:
    found = distortion(1024, 5120, "binary-codebook", length=10, entries=entries, assignment="hamming", sweeps=0)
    assert found == pytest.approx(HAMMING[entries], rel=0.02)


@pytest.mark.parametrize("entries", MAGNITUDE)
def test_binary_codebook_by_magnitude(entries: int) -> None:
    found = distortion(1024, 2560, "binary-codebook", length=10, entries=entries, sweeps=0)
    assert found == pytest.approx(MAGNITUDE[entries], rel=0.02)


@pytest.mark.parametrize(("length", "entries"), VECTORS, ids=str)
def test_vector_codebook(length: int, entries: int) -> None:
    found = distortion(1024, 1280, "vector-codebook", length=length, entries=entries)
    assert found == pytest.approx(VECTORS[length, entries], rel=0.02)


@pytest.mark.parametrize(("bits", "length"), TRELLIS, ids=str)
def test_trellis(bits: int, length: int) -> None:
    found = distortion(256, 320, "trellis", bits=bits, length=length)
    assert found == pytest.approx(TRELLIS[bits, length], rel=0.03)


def test_trellis_below_one_bit_lies_between_vectors_and_the_bound() -> None:
    assert 4**-0.8 < distortion(256, 640, "trellis", bits=4, length=5) < 0.365 < VECTORS[10, 256]


@pytest.mark.parametrize(("length", "checks"), PARITY, ids=str)
def test_parity_signs(length: int, checks: int) -> None:
    found = distortion(1024, 256, "parity-signs", length=length, checks=checks, sweeps=0)
    assert found == pytest.approx(PARITY[length, checks], rel=0.01)


def test_gaussian_distortions_stay_above_the_rate_distortion_bound() -> None:
    assert distortion(512, 2560, "binary-codebook", length=10, entries=256) > 4**-0.8
