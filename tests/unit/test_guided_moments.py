"""Second moments weighted by the loss against plain torch: gradients by autograd, sums by einsum, and what refuses to add up."""

import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.battery.cases import gaussian
from workbench import presets
from workbench.calibration import calibrate, iterate_windows
from workbench.errors import ModelError, RecipeError
from workbench.guided_moments import GuidedSums, TokenWeights, split_rows
from workbench.models import ModelHandle, open_model
from workbench.models.output_gradients import _draw_labels, measure_token_weights
from workbench.models.text import Text
from workbench.quantizers import quantize, quantize_model
from workbench.quantizers.runs.preflight import estimate
from workbench.quantizers.runs.quantize_layer import count_groups
from workbench.recipe import LayerPlan, Recipe
from workbench.store import Store

STORIES = Text("stories", ("Tom had a red ball. He ran home.", "A cat sat on my hat.", "The dog is big. The ant is not."))
LAYERS = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj", "model.layers.1.self_attn.o_proj")
GROUPS = 3


@pytest.fixture
def model(tiny_models: dict[str, Path]) -> ModelHandle:
    return open_model(tiny_models["llama"])


def read_by_hand(model: ModelHandle, name: str, text: Text) -> tuple[Tensor, Tensor]:
    """Inputs `[tokens, cols]` and gradients by outputs `[tokens, rows]` of one layer, float64: its output is a leaf."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for ids in iterate_windows(model, text, 1000, 0):
        calls: list[tuple[Tensor, Tensor]] = []

        def see(module: torch.nn.Module, x: tuple[Tensor], y: Tensor, calls: list[tuple[Tensor, Tensor]] = calls) -> Tensor:
            calls.append((x[0].detach(), y.detach().clone().requires_grad_()))
            return calls[-1][1] * 1.0

        hook = model.module.get_submodule(name).register_forward_hook(see)
        logits = model.module(ids).logits[0]
        hook.remove()
        loss = -logits.log_softmax(-1).gather(1, _draw_labels(logits, ids, 0)[:, None]).sum()
        ((x, y),) = calls
        pairs.append((x.flatten(0, -2).double(), torch.autograd.grad(loss, y)[0].flatten(0, -2).double()))
    return torch.cat([x for x, _ in pairs]), torch.cat([g for _, g in pairs])


@pytest.mark.parametrize("name", LAYERS)
def test_guided_moments_are_those_of_autograd(model: ModelHandle, name: str) -> None:
    moments = calibrate(model, STORIES, guided=GROUPS).guided[name]
    x, gradient = read_by_hand(model, name, STORIES)
    assert gradient.abs().max() > 1e-4
    torch.testing.assert_close(moments.rows.double(), gradient.square().mean(0), rtol=1e-4, atol=1e-12)
    for group, rows in enumerate(torch.arange(gradient.shape[1]).tensor_split(GROUPS)):
        weight = gradient[:, rows].square().mean(1)
        expected = torch.einsum("t,ti,tj->ij", weight, x, x) / len(x)
        torch.testing.assert_close(moments.groups[group].double(), expected, rtol=1e-3, atol=1e-6 * expected.abs().max().item())
        torch.testing.assert_close(moments.weight[group].double(), weight.mean(), rtol=1e-4, atol=0)
        assert moments.effective_tokens[group] == pytest.approx((weight.sum().square() / weight.square().sum()).item(), abs=0.6)


def test_the_tokens_asked_for_are_drawn_from_the_predictions() -> None:
    """The mean of the squared gradients is the Fisher information only then; the text's own tokens are another thing."""
    logits = torch.tensor([0.0, 1.0, 3.0]).expand(20_000, 3)
    labels = _draw_labels(logits, torch.zeros(1, 20_000, dtype=torch.long), 0)
    torch.testing.assert_close(torch.bincount(labels) / len(labels), logits[0].softmax(-1), rtol=0, atol=0.01)
    assert torch.equal(labels, _draw_labels(logits, torch.zeros(1, 20_000, dtype=torch.long), 0))
    assert not torch.equal(labels, _draw_labels(logits, torch.zeros(1, 20_000, dtype=torch.long), 1))


def test_one_group_of_equal_weights_is_the_plain_moment() -> None:
    x = gaussian(50, 8)
    sums = GuidedSums(8, TokenWeights(torch.full((50, 1), 0.3), torch.full((5,), 0.3)))
    sums.add(x[:20])
    sums.add(x[20:])
    moments = sums.mean()
    torch.testing.assert_close(moments.groups[0], 0.3 * x.T @ x / 50)
    torch.testing.assert_close(moments.mean, moments.groups[0])
    assert moments.effective_tokens == [50]


def test_halves_of_a_text_add_up(model: ModelHandle) -> None:
    halves = [
        calibrate(model, Text("half", documents), guided=GROUPS) for documents in (STORIES.documents[:1], STORIES.documents[1:])
    ]
    together, whole = halves[0] + halves[1], calibrate(model, STORIES, guided=GROUPS)
    assert list(together.guided) == list(whole.guided) == model.layer_names
    for name in LAYERS:
        for part in ("groups", "rows", "weight", "square"):
            a, b = (getattr(stats.guided[name], part) for stats in (together, whole))
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item())
        assert together.guided[name].tokens == whole.tokens


def test_the_plain_moments_stay(model: ModelHandle) -> None:
    plain, guided = calibrate(model, STORIES), calibrate(model, STORIES, guided=2)
    assert all(torch.equal(plain[name].moment, guided[name].moment) for name in model.layer_names)
    assert plain.guided == {}
    assert plain.facts() == {key: value for key, value in guided.facts().items() if key != "guided"}
    assert guided.facts()["guided"] == 2


def test_a_streamed_model_has_the_same(model: ModelHandle, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = calibrate(model, STORIES, guided=GROUPS)
    monkeypatch.setenv("WORKBENCH_STREAM", "always")
    streamed = open_model(tiny_models["llama"])
    assert streamed.streams
    stats = calibrate(streamed, STORIES, guided=GROUPS)
    for name in model.layer_names:
        torch.testing.assert_close(stats.guided[name].groups, expected.guided[name].groups, rtol=1e-3, atol=1e-9)
        torch.testing.assert_close(stats.guided[name].rows, expected.guided[name].rows, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("family", ["gpt2", "opt", "gemma3"])
def test_other_families_have_gradients(tiny_models: dict[str, Path], family: str) -> None:
    model = open_model(tiny_models[family])
    weights = measure_token_weights(model, dict.fromkeys(model.layer_names, 2), [model.encode("Tom had a red ball.")])
    assert list(weights) == model.layer_names
    assert all(one.rows.shape == (model.layer(name).rows,) and bool(one.rows.any()) for name, one in weights.items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.module.parameters())


def test_passes_of_other_threads_are_not_counted(model: ModelHandle) -> None:
    """Another thread measures the same layer while the gradients of this one are on their way to it."""
    first, second = (model.encode(document) for document in STORIES.documents[:2])
    alone = [measure_token_weights(model, {LAYERS[0]: 1}, [ids])[LAYERS[0]] for ids in (first, second)]
    others: list[TokenWeights] = []

    def disturb(_gradient: Tensor) -> None:
        other = threading.Thread(target=lambda: others.append(measure_token_weights(model, {LAYERS[0]: 1}, [second])[LAYERS[0]]))
        other.start()
        other.join()

    here = threading.get_ident()

    def see(module: torch.nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if threading.get_ident() == here:
            output.register_hook(disturb)

    with model.module.get_submodule(LAYERS[1]).register_forward_hook(see):
        beside = measure_token_weights(model, {LAYERS[0]: 1}, [first])[LAYERS[0]]
    assert len(others) == 1
    for measured, expected in ((beside, alone[0]), (others[0], alone[1])):
        torch.testing.assert_close(measured.tokens, expected.tokens, rtol=1e-4, atol=0)


def test_a_store_gives_them_back(model: ModelHandle, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = calibrate(model, STORIES, guided=GROUPS, store=store)
    again = calibrate(model, STORIES, guided=GROUPS, store=store)
    assert again.guided.keys() == first.guided.keys()
    assert all(torch.equal(again.guided[name].groups, first.guided[name].groups) for name in first.guided)
    assert calibrate(model, STORIES, store=store).guided == {}
    assert len(calibrate(model, STORIES, guided=2, store=store).guided[LAYERS[0]].groups) == 2


def test_rows_are_split_evenly() -> None:
    assert split_rows(10, 4) == [slice(0, 3), slice(3, 6), slice(6, 8), slice(8, 10)]
    assert len(split_rows(3, 8)) == 3


def test_what_does_not_fit_is_refused(model: ModelHandle, tiny_models: dict[str, Path]) -> None:
    guided = calibrate(model, STORIES, guided=2)
    with pytest.raises(ModelError, match=r"guided moments of 2 and of no groups do not add up"):
        guided + calibrate(model, STORIES)
    with pytest.raises(ModelError, match=r"-1 groups of rows for guided moments; use 1 or more, or 0 for none"):
        calibrate(model, STORIES, guided=-1)
    with pytest.raises(ModelError, match=r"is not a causal language model: without predictions of tokens"):
        calibrate(open_model(tiny_models["bert"]), STORIES, guided=2)
    recipe = presets.parse("gptq:bits=2,group=32,guided=4")
    with pytest.raises(RecipeError, match=r"guided=4, but its guided moments are of 2 groups of rows; calibrate with guided=4"):
        quantize(model, LAYERS[0], recipe, guided)
    with pytest.raises(RecipeError, match=r"guided=4, but the statistics hold no guided moments of it; use stats=wb.calibrate"):
        quantize_model(model, recipe, calibrate(model, STORIES))
    with pytest.raises(RecipeError, match=r"guided=2 changes nothing in wb.recipe.*, which uses no second moment; omit it"):
        quantize_model(model, presets.parse("rtn:bits=2,group=32,guided=2"), guided)
    with pytest.raises(RecipeError, match=r"guided=2 and guided=4 need two calibrations"):
        count_groups([presets.parse("gptq:guided=2"), recipe])
    with pytest.raises(RecipeError, match=r"guided is -1; it must be from 0 to 4096"):
        presets.recipe("gptq", guided=-1)


def test_a_recipe_keeps_the_setting() -> None:
    recipe = presets.parse("gptq:bits=2,guided=4")
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.code() == "wb.recipe('gptq', bits=2, guided=4)"
    assert "guided=4" in recipe.replace(seed=3).code()
    assert "guided" not in presets.parse("gptq:bits=2").to_dict()  # its hash is the key of stored results
    assert LayerPlan.from_json(LayerPlan.uniform(recipe).to_json()).rules[0][1].guided == 4


def test_a_run_that_is_guided_takes_more_memory(model: ModelHandle) -> None:
    plain, guided = (
        estimate(model, presets.parse(f"gptq:bits=2,group=32{extra}"), tokens=1_000_000) for extra in ("", ",guided=8")
    )
    assert guided.memory - plain.memory > 4 * 1_000_000 * 8 * len(model.layer_names) - (50 << 20)


def test_sums_of_another_run_are_refused() -> None:
    sums = GuidedSums(8, TokenWeights(torch.ones(4, 1), torch.ones(5)))
    sums.add(gaussian(3, 8))
    with pytest.raises(ModelError, match=r"3 inputs came to a layer whose gradients are of 4 tokens"):
        sums.mean()
    with pytest.raises(ModelError, match=r"5 inputs came to a layer"):
        sums.add(gaussian(2, 8))
