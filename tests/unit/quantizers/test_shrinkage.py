"""Second moments of few tokens: how much of the diagonal they are mixed with, and that few tokens are not worse than none."""

import pytest
import torch
from torch import Tensor

from tests.battery.cases import correlated, gaussian
from workbench import memory, presets
from workbench.errors import RecipeError
from workbench.jobs import run_steps
from workbench.quantizers import pipeline
from workbench.quantizers.distance import compute_output_error
from workbench.quantizers.pipeline import quantize_layer
from workbench.quantizers.shrinkage import (
    collect_calibration_facts,
    compute_shrinkage_share,
    estimate_token_count,
    is_calibrated,
    is_few,
    make_zero_moment,
    shrink_moment,
    warn_of_few,
)
from workbench.recipe import Recipe

COLS = 128


def inputs(tokens: int, seed: int) -> Tensor:
    """Inputs that share a few directions and differ in strength, `[tokens, COLS]`."""
    mix = gaussian(COLS // 4, COLS, 1)
    shared = gaussian(tokens, COLS // 4, seed) @ mix / (COLS // 4) ** 0.5
    return (shared + 0.3 * gaussian(tokens, COLS, seed + 1)) * torch.linspace(0.3, 3, COLS)


def moment(tokens: int, seed: int) -> Tensor:
    """Their second moment."""
    x = inputs(tokens, seed)
    return x.mT @ x / tokens


@pytest.mark.parametrize(("tokens", "part"), [(1, 0.93), (16, 0.44), (128, 0.09), (128 * 100, 0.001)])
def test_the_share_of_the_diagonal_follows_tokens_over_columns(tokens: int, part: float) -> None:
    assert compute_shrinkage_share(tokens, COLS, 0.1) == pytest.approx(part, abs=0.005)


def test_correlations_shrink_and_the_diagonal_moves_to_its_mean() -> None:
    h = correlated(24)
    mixed, part = shrink_moment(h, 8, 0.5), compute_shrinkage_share(8, 24, 0.5)
    apart = ~torch.eye(24, dtype=torch.bool)
    torch.testing.assert_close(mixed[apart], (1 - part) * h[apart])
    target = (8 * h.diagonal() + 2 * h.diagonal().mean()) / 10
    torch.testing.assert_close(mixed.diagonal(), (1 - part) * h.diagonal() + part * target)
    assert torch.equal(h, correlated(24))  # it is shared by layers


def test_nothing_is_shrunk_at_strength_0_or_of_unknown_tokens_that_may_be_enough() -> None:
    h = correlated(24)
    assert shrink_moment(h, 8, 0.0) is h
    assert shrink_moment(h, None, 0.1) is h


@pytest.mark.parametrize("tokens", [1, 5, 60])
def test_the_rank_tells_how_few_tokens_there_were(tokens: int) -> None:
    assert estimate_token_count(moment(tokens, 3)) == tokens
    assert torch.equal(shrink_moment(moment(tokens, 3), None, 0.1), shrink_moment(moment(tokens, 3), tokens, 0.1))


def test_the_rank_tells_nothing_where_it_is_full() -> None:
    assert estimate_token_count(moment(4096, 3)) is None
    assert (
        estimate_token_count(torch.diag(torch.tensor([0.0, 1.0, 2.0]))) is None
    )  # an input that is always silent is no sign of few


def test_no_token_is_no_calibration() -> None:
    assert estimate_token_count(make_zero_moment(5)) == 0
    assert not is_calibrated(make_zero_moment(5))
    assert is_calibrated(torch.eye(5))


def test_few_is_much_less_with_shrinkage() -> None:
    assert is_few(3, COLS, 0.1)
    assert not is_few(4, COLS, 0.1)
    assert is_few(COLS - 1, COLS, 0.0)
    assert not is_few(None, COLS, 0.0)
    assert not is_few(0, COLS, 0.1)  # that is not calibrated, which is said as such


@pytest.mark.parametrize("spelled", ["binary", "ternary", "gptq:bits=2,group=32", "btc:bits=0.8", "billm", "pb-llm"])
def test_few_tokens_are_not_worse_than_none(spelled: str) -> None:
    """Output error on the inputs' own distribution: close to what equal errors would give, also where a warning is due."""
    w, true = gaussian(48, COLS) * 0.02, moment(20_000, 100)

    def lost(h: Tensor, tokens: int | None) -> float:
        return compute_output_error(w, run_steps(quantize_layer(w, h, presets.parse(spelled), tokens=tokens)).weight(), true)

    without = lost(torch.eye(COLS), None)
    for tokens, above in ((1, 1.08), (8, 1.05)):
        errors = [lost(moment(tokens, seed), tokens) for seed in (7, 17, 27)]
        assert sum(errors) / 3 < above * without
    assert lost(moment(COLS // 4, 7), COLS // 4) < 1.02 * without


def test_without_shrinkage_they_are() -> None:
    w, true = gaussian(48, COLS) * 0.02, moment(20_000, 100)
    result = run_steps(quantize_layer(w, moment(1, 7), presets.parse("binary:shrinkage=0"), tokens=1))
    assert compute_output_error(w, result.weight(), true) > 1


def test_too_few_tokens_are_said_once_for_all_layers() -> None:
    w, h, recipe = gaussian(8, COLS), moment(3, 7), presets.parse("binary")
    layers = {name: run_steps(quantize_layer(w, h, recipe, tokens=tokens)) for name, tokens in (("a", 64), ("b", 3), ("c", 2))}
    with pytest.warns(UserWarning, match=r"2 of 3 layers .* first 'b' \(3 tokens for 128 columns; at least 4 are needed\)"):
        warn_of_few(layers)
    facts = collect_calibration_facts(layers)
    assert facts["few_tokens"] == ["b", "c"]
    assert facts["shrinkage"] == pytest.approx([12.8 / 76.8, 12.8 / 14.8])
    warn_of_few({"a": layers["a"]})
    assert (
        collect_calibration_facts({"a": run_steps(quantize_layer(w, h, presets.parse("rtn"), tokens=3))}) == {}
    )  # h is only measured with


@pytest.mark.parametrize("spelled", ["rtn:bits=2", "gptq:bits=2"])
def test_a_layer_that_no_token_came_to_is_not_calibrated(spelled: str) -> None:
    recipe, w = presets.parse(spelled), gaussian(8, 64)
    result = run_steps(quantize_layer(w, torch.zeros(64, 64), recipe))
    even = run_steps(quantize_layer(w, torch.eye(64), recipe))
    assert result.output_error is None
    assert torch.equal(result.weight(), even.weight())


def test_more_than_enough_tokens_change_next_to_nothing() -> None:
    h = moment(20_000, 100)
    assert ((shrink_moment(h, 20_000, 0.1) - h).norm() / h.norm()).item() < 1e-3


@pytest.mark.parametrize(
    ("spelled", "strength"),
    [("gptq", 0.1), ("gptq:clip=none", 0.0), ("gptq:clip=none,shrinkage=0.3", 0.3), ("btc-paper", 0.0), ("btc:shrinkage=0", 0.0)],
)
def test_presets_set_it_and_those_as_released_leave_it_out(spelled: str, strength: float) -> None:
    recipe = presets.parse(spelled)
    assert recipe.shrinkage == strength
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_a_recipe_that_was_written_before_there_was_shrinkage_has_none() -> None:
    written = presets.parse("gptq").to_dict()
    del written["shrinkage"]
    assert Recipe.from_dict(written).shrinkage == 0


def test_a_strength_below_0_is_a_mistake() -> None:
    with pytest.raises(RecipeError, match=r"shrinkage is -1.0; it must be from 0.0 to 1000000"):
        presets.recipe("gptq", shrinkage=-1.0)
    with pytest.raises(RecipeError, match=r"recipe: shrinkage is 'much'; a value of type float is needed"):
        presets.recipe("gptq").replace(shrinkage="much")


def test_the_moment_of_a_wide_layer_waits_on_disk_once_it_is_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, h = presets.recipe("gptq", bits=2), correlated(40)
    expected, sizes = pipeline.prepare_moment(h, 100, recipe), list[int]()

    def spill(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes)
        return memory.spill(tensor)

    monkeypatch.setattr(pipeline, "spill", spill)
    for width, spilled in ((40, []), (39, [4 * 40 * 40])):
        monkeypatch.setattr(pipeline, "WIDE", width)
        assert torch.equal(pipeline.prepare_moment(h, 100, recipe), expected)
        assert sizes == spilled
