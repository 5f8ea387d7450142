"""Presets that say "as released" equal the released codes, of which `reference` has an account of its own."""

import pytest
from torch import Tensor

from tests.battery.cases import correlated, gaussian, quantize
from tests.released.reference import METHODS, half, loss
from workbench import calibrate, presets, text
from workbench.models import ModelHandle

LAYER = "model.layers.0.self_attn.k_proj"
RANDOM = {spelled: "random" if spelled.startswith("gptq") else "dead-input" for spelled in METHODS}  # GPTQ codes dead inputs here
CASES = [(spelled, matrix) for spelled in METHODS for matrix in ("built-in", RANDOM[spelled])]


@pytest.fixture(scope="module")
def layers(builtin: ModelHandle) -> dict[str, tuple[Tensor, Tensor]]:
    """Weights and second moments: half a layer of the built-in model, and random ones with a last, short block."""
    stats = calibrate(builtin, text("calibration"), tokens=2048, layers=[LAYER])
    dead = correlated(200) * 1e6  # so that the ones that the released codes put into a dead column's place do not weigh
    dead[7], dead[:, 7] = 0, 0
    w = gaussian(40, 200)
    return {
        "built-in": (builtin.weight(LAYER)[:64].float(), stats[LAYER].moment),
        "random": (w, correlated(200)),
        "dead-input": (w, dead),
    }


@pytest.mark.parametrize(("spelled", "matrix"), CASES)
def test_as_released_equals_the_released_code(spelled: str, matrix: str, layers: dict[str, tuple[Tensor, Tensor]]) -> None:
    w, h = layers[matrix]
    ours, theirs = quantize(presets.parse(spelled), w, h).weight(), METHODS[spelled](w, h, half).float()
    same = ((ours - theirs).abs() <= 1e-5 * theirs.abs().max()).float().mean().item()
    assert same > 0.99, f"{same:.2%} of the values are the same"
    assert loss(w, ours, h) == pytest.approx(loss(w, theirs, h), rel=1e-3)
