"""The trellis coder: what it stores, short and ragged matrices, feedback, and gradients of its scales."""

import pytest

from tests.battery.cases import correlated, gaussian, quantize
from workbench import presets, registry
from workbench.errors import RecipeError
from workbench.kernels import formats
from workbench.kernels.packing.packed import Packed
from workbench.presets.preset import compose


def test_a_path_takes_the_bits_it_should() -> None:
    result = quantize(compose(registry.make("coder", "trellis")), gaussian(64, 256))
    bits = {entry.item: entry.bits for entry in result.ledger.entries}
    assert bits == {"trellis path": 64 * 52 * 4, "trellis scale": 64 * 16}  # 256 columns are 51.2 steps of 5
    assert result.nominal_bits == pytest.approx(0.8)


def test_longer_states_lower_the_error_at_the_same_bits() -> None:
    w = gaussian(128, 60)
    short, long = (quantize(compose(registry.make("coder", "trellis", state=state)), w) for state in (6, 12))
    assert long.relative_error < 0.9 * short.relative_error
    assert long.bits_per_weight == short.bits_per_weight


def test_rings_shorter_than_a_state_remember_what_there_is() -> None:
    result = quantize(compose(registry.make("coder", "trellis")), gaussian(4, 100))
    assert result.packed.facts["state"] == 8
    assert result.relative_error < 0.6


def test_a_step_past_the_last_column_is_judged_by_its_real_columns() -> None:
    w = gaussian(64, 21)
    errors = (quantize(compose(registry.make("coder", "trellis")), w).weight() - w).square().mean(0)
    assert errors[20] < 0.2  # 4 bits for a single column


def test_feedback_lowers_the_output_error() -> None:
    w, h = gaussian(64, 240), correlated(240)
    fed, plain = (quantize(presets.recipe("qtip", compensation=flag), w, h) for flag in (True, False))
    assert fed.output_error < 0.8 * plain.output_error


def test_gradients_reach_the_scales() -> None:
    packed = quantize(compose(registry.make("coder", "trellis")), gaussian(16, 40)).packed
    scale = packed.tensors["scale"].float().requires_grad_()
    formats.decode(Packed(packed.format, 16, 40, {**packed.tensors, "scale": scale}, packed.facts)).square().sum().backward()
    assert (scale.grad != 0).all()


def test_a_state_shorter_than_a_step_is_a_mistake() -> None:
    with pytest.raises(RecipeError, match="a state of 6 bits cannot hold a step of 8; use state=8 or more"):
        registry.make("coder", "trellis", bits=8, state=6)
