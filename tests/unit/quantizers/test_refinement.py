"""Refinement of blocks: lower block error at the same stored bits, never worse where not trained, the same after a kill."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from workbench import presets
from workbench.artifact import load, save
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.errors import RecipeError
from workbench.kernels import formats
from workbench.kernels.formats.format import find
from workbench.kernels.packing.bitpack import pack
from workbench.kernels.packing.packed import Packed, build_ledger
from workbench.models import ModelHandle, open_model
from workbench.models.text import text
from workbench.part_settings import REFINED
from workbench.presets.preset import make_part
from workbench.quantized import QuantizedModel
from workbench.quantizers import LayerProgress, quantize, quantize_model, quantize_model_steps
from workbench.quantizers.learning.trainable_forms import StoredForms, compute_latent, find_coded_node
from workbench.recipe import LayerPlan, Recipe
from workbench.store import Store

TEXT = text("calibration")


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path]) -> ModelHandle:
    return open_model(tiny_models["gpt2"])


def recipe(what: str = "codes", steps: int = 20) -> Recipe:
    """Below one bit with a learned transform that layers share, refined; by Hamming distance, which leaves most to be refined."""
    plain = presets.recipe("btc", bits=0.8, assignment="hamming", sweeps=3)
    transform = make_part("transform", "learned", steps=2, tokens=64, draws=2)
    return plain.replace(transform=transform, refinement=make_part("refinement", "block", what=what, steps=steps, tokens=128))


def run(
    model: ModelHandle, recipe: Recipe | LayerPlan, store: Store | None = None, seen: list[LayerProgress] | None = None
) -> QuantizedModel:
    return quantize_model(model, recipe, text=TEXT, tokens=300, store=store, on_progress=None if seen is None else seen.append)


@pytest.fixture(scope="module")
def plain(model: ModelHandle) -> QuantizedModel:
    return run(model, recipe().replace(refinement=make_part("refinement", "none")))


@pytest.fixture(scope="module")
def refined(model: ModelHandle) -> Callable[[str], tuple[QuantizedModel, list[LayerProgress]]]:
    """The result of `recipe(what)` and its progress, computed once; read only."""

    @functools.cache
    def refine(what: str) -> tuple[QuantizedModel, list[LayerProgress]]:
        steps: list[LayerProgress] = []
        return run(model, recipe(what), seen=steps), steps

    return refine


def looks(seen: list[LayerProgress], block: str) -> list[float]:
    """Every loss on held-out windows while one block was refined."""
    steps = [s.snapshot.detail["step"] for s in seen if s.event == "refine" and s.layer == block and s.snapshot is not None]
    return [step.held_out for step in steps if step.held_out is not None]


def same_tensors(one: QuantizedModel, other: QuantizedModel, integers: bool) -> bool:
    """Whether all integer (or all float) tensors of two results are equal."""
    return all(
        torch.equal(a.tensors[name], b.tensors[name])
        for layer in one.layers
        for (_, a), (_, b) in zip(one.layers[layer].packed.walk(), other.layers[layer].packed.walk(), strict=True)
        for name in a.tensors
        if a.tensors[name].is_floating_point() != integers
    )


@pytest.mark.parametrize("what", REFINED)
def test_stored_bits_stay_and_numbers_move(model: ModelHandle, plain: QuantizedModel, refined: Callable, what: str) -> None:
    result, _ = refined(what)
    first = {name: layer for name, layer in result.layers.items() if ".h.0." in name}  # blocks after it see other inputs
    assert all(build_ledger(layer.packed, layer.nominal_bits) == plain.layers[name].ledger for name, layer in first.items())
    start = replace(plain, layers={name: plain.layers[name] for name in first})
    assert not same_tensors(replace(result, layers=first), start, integers=False)
    assert same_tensors(replace(result, layers=first), start, integers=True) == (what != "codes")
    assert bool(result.changed_tensors) == (what != "scales")
    own = model.other_tensors(model.layer_names)
    assert all((t.dtype, t.shape) == (own[name].dtype, own[name].shape) for name, t in result.changed_tensors.items())
    assert [layer.recipe.refinement for layer in result.layers.values()] == [
        make_part("refinement", "block", **settings(what))
    ] * 8


def settings(what: str) -> dict[str, object]:
    """Those of `recipe`."""
    return {"what": what, "steps": 20, "tokens": 128}


def test_the_output_comes_nearer_to_the_originals(model: ModelHandle, plain: QuantizedModel) -> None:
    lm = model.language_model()
    ids = lm.encode(TEXT.documents[0])[:, :100]
    wanted = lm.logits(ids)

    def distance(result: QuantizedModel) -> float:
        return (build_packed_copy(model, result.layers, result.changed_tensors).logits(ids) - wanted).square().mean().item()

    assert distance(run(model, recipe("norms", steps=60))) < 0.95 * distance(plain)


def test_without_steps_nothing_changes(model: ModelHandle, plain: QuantizedModel) -> None:
    refined = run(model, recipe(steps=0))
    assert same_tensors(refined, plain, integers=True)
    assert same_tensors(refined, plain, integers=False)
    assert refined.changed_tensors == {}


def test_a_rate_that_ruins_everything_is_taken_back(model: ModelHandle, plain: QuantizedModel) -> None:
    ruined = recipe().replace(refinement=make_part("refinement", "block", rate=1.0, what="codes", steps=10, tokens=128))
    seen: list[LayerProgress] = []
    assert same_tensors(run(model, ruined, seen=seen), plain, integers=True)
    assert {step.layer for step in seen if step.event == "refine"} == {"transformer.h.0", "transformer.h.1"}


def test_a_killed_run_goes_on_to_the_same_result(model: ModelHandle, refined: Callable, tmp_path: Path) -> None:
    chosen, store = recipe(), Store(tmp_path)
    whole, _ = refined("codes")
    killed = quantize_model_steps(model, chosen, text=TEXT, tokens=300, store=store)
    done = (step for step in killed if step.event == "done" and step.layer.startswith("transformer.h.1"))
    next(done)
    killed.close()
    seen: list[LayerProgress] = []
    again = run(model, chosen, store, seen)
    assert not looks(seen, "transformer.h.0")
    assert looks(seen, "transformer.h.1")
    assert same_tensors(again, whole, integers=True)
    assert same_tensors(again, whole, integers=False)
    assert again.layers.keys() == whole.layers.keys()
    for name, layer in whole.layers.items():
        assert (again.layers[name].relative_error, again.layers[name].output_error) == (layer.relative_error, layer.output_error)
    assert all(torch.equal(again.changed_tensors[name], tensor) for name, tensor in whole.changed_tensors.items())


def test_progress_rises_to_one_and_tells_every_step(refined: Callable) -> None:
    _, seen = refined("codes")
    fractions = [step.fraction for step in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    steps = [s.snapshot.detail["step"].step for s in seen if s.event == "refine" and s.snapshot is not None]
    assert steps == [*range(1, 21), *range(1, 21)]


def test_a_saved_model_runs_refined(model: ModelHandle, refined: Callable, tmp_path: Path) -> None:
    result, _ = refined("norms")
    ids = model.language_model().encode("Once upon a time")
    expected = build_packed_copy(model, result.layers, result.changed_tensors).logits(ids)
    assert not torch.allclose(expected, build_packed_copy(model, result.layers).logits(ids), rtol=1e-2), "the vectors matter"
    again = load(save(result, tmp_path / "out", model))
    torch.testing.assert_close(again.logits(ids), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_only_the_layers_that_ask_for_it_are_refined(model: ModelHandle) -> None:
    unrefined = recipe().replace(refinement=make_part("refinement", "none"))
    plan = LayerPlan((("*.0.mlp.*", recipe("scales")), ("*", unrefined)))
    mixed, plain = run(model, plan), run(model, LayerPlan((("*.0.mlp.*", unrefined), ("*", unrefined))))

    def unchanged(name: str) -> bool:
        one, other = (replace(result, layers={name: result.layers[name]}) for result in (mixed, plain))
        return same_tensors(one, other, integers=False)

    first = [name for name in mixed.layers if ".h.0." in name]  # blocks after it see other inputs
    assert [name for name in first if not unchanged(name)] == ["transformer.h.0.mlp.c_fc", "transformer.h.0.mlp.c_proj"]


def test_layers_by_themselves_are_not_refined(model: ModelHandle) -> None:
    chosen = presets.recipe("rtn", bits=2, group=32).replace(refinement=make_part("refinement", "block"))
    with pytest.raises(RecipeError, match=r"refinement 'block' of layer '.*' works on blocks in sequence; give text= instead of"):
        quantize_model(model, chosen, {})
    name = model.layer_names[0]
    alone, unrefined = (quantize(model, name, r) for r in (chosen, presets.recipe("rtn", bits=2, group=32)))
    assert torch.equal(alone.weight(), unrefined.weight())


RECIPES = {
    "codebook": presets.recipe("btc", bits=0.8),
    "rotated": presets.recipe("btc", bits=0.8, transform="hadamard"),
    "masked": presets.recipe("btc", bits=1.11, compensation=False),
    "planes": presets.recipe("btc-planes", compensation=False),
    "grid": presets.recipe("rtn", bits=2, group=32),
    "factors": presets.recipe("littlebit", bits=1.0),
    "parity": presets.recipe("parity", bits=0.8, compensation=False),
    "trellis": presets.recipe("qtip", bits=0.8, compensation=False),
    "vectors": presets.recipe("gptvq", bits=0.8, scope="matrix", compensation=False),
}


def forms_of(model: ModelHandle, recipe: Recipe) -> tuple[StoredForms, Mapping[str, Tensor]]:
    """Two layers' forms with codes to train."""
    names = model.layer_names[:2]
    weights = {name: model.weight(name).float() for name in names}
    stats = None
    if recipe.assignment.name != "nearest":
        from workbench.calibration import calibrate

        stats = calibrate(model, TEXT, tokens=200)
    trees = {name: quantize(model, name, recipe, stats).packed for name in names}
    return StoredForms(trees, weights), trees


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_training_begins_at_what_is_stored(model: ModelHandle, recipe: Recipe) -> None:
    forms, trees = forms_of(model, recipe)
    for name, tree in trees.items():
        for rounded in (True, False):
            decoded = formats.decode(forms.tree(name, rounded=rounded))
            torch.testing.assert_close(decoded, formats.decode(tree), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_a_step_down_the_gradient_comes_nearer(model: ModelHandle, recipe: Recipe) -> None:
    """Floats and codes get gradients through every format, and what they decode to follows."""
    forms, trees = forms_of(model, recipe)
    name = next(iter(trees))
    goal = 1.5 * model.weight(name).float().roll(1, 0)  # not what the codes are the best for already

    def loss() -> Tensor:
        return (formats.decode(forms.tree(name, rounded=False)) - goal).square().sum()

    before = loss()
    before.backward()
    own = [p for p in forms.parameters() if p.grad is not None]
    of_codes = [*(sign.step for sign in forms.signs.values()), *(matrix.step for matrix in forms.latent.values())]
    assert any(p is q for p in own for q in of_codes)
    with torch.no_grad():
        for p in own:
            p -= 1e-3 * p.grad / p.grad.norm().clamp(min=1e-12)
    assert loss() < before


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_codes_of_every_form_follow_what_is_trained(model: ModelHandle, recipe: Recipe) -> None:
    """Where the latent numbers of codes turn round, so do the codes; without a choice they wait for the next one."""
    forms, trees = forms_of(model, recipe)
    name = next(iter(trees))
    started = formats.decode(forms.tree(name, rounded=True))
    with torch.no_grad():
        for matrix in (*list(forms.signs.values())[:1], *forms.latent.values()):  # with both factors nothing would turn
            matrix.step.sub_(2 * matrix.value() / matrix.size)
    if name in forms.latent:
        assert torch.equal(formats.decode(forms.tree(name, rounded=True, choose=False)), started)
    turned = formats.decode(forms.tree(name, rounded=True))
    assert (turned * started).sum() < 0
    assert {k: t.shape for k, t in find_coded_node(forms.tree(name, rounded=True)).tensors.items()} == {
        k: t.shape for k, t in find_coded_node(trees[name]).tensors.items()
    }


@pytest.mark.parametrize("coder", ["codebook", "planes", "grid"])
def test_a_latent_keeps_its_codes_and_leans_towards_the_weight(model: ModelHandle, coder: str) -> None:
    _, trees = forms_of(model, RECIPES[coder])
    for name, tree in trees.items():
        weight, values = model.weight(name).float(), formats.decode(tree)
        start = compute_latent(tree, weight)
        assert torch.equal(formats.decode(formats.recode_nearest(tree, start)), values)
        assert (start - weight).square().sum() < 0.7 * (values - weight).square().sum()


@pytest.mark.parametrize(("coder", "slower"), [("codebook", 1), ("parity", 10), ("trellis", 10)])
def test_paths_move_slower_than_other_codes(model: ModelHandle, coder: str, slower: int) -> None:
    forms, trees = forms_of(model, RECIPES[coder])
    for name in trees:
        trained = forms.latent[name]
        assert slower * trained.size == pytest.approx(trained.start.square().mean().sqrt().item())


def test_loose_signs_are_worth_what_their_flip_costs() -> None:
    random = torch.Generator().manual_seed(0)
    target = torch.randn(6, 8, generator=random)
    shape = {"row": torch.rand(6, generator=random) + 0.5, "column": torch.rand(8, generator=random) + 0.5}
    signs = {"left": torch.randn(6, 3, generator=random).sign(), "right": torch.randn(3, 8, generator=random).sign()}
    bits = {name: pack(sign > 0, 1) for name, sign in signs.items()}
    tree = Packed("binary-factors", 6, 8, {**shape, **bits, "middle": torch.rand(3, generator=random) + 0.5}, {"rank": 3})

    def error(changed: dict[str, Tensor]) -> Tensor:
        return (target - formats.decode(replace(tree, tensors={**tree.tensors, **changed}))).square().sum()

    leans = find(tree).loose(tree, target)
    for name, sign in signs.items():
        assert torch.equal(leans[name].sign(), sign)
        without = error({name: sign * (torch.arange(sign.numel()).view_as(sign) != 4)}) - error({})
        flipped = error({name: torch.where(torch.arange(sign.numel()).view_as(sign) == 4, -sign, sign)}) - error({})
        worth = flipped / 2 - without  # of the sign alone: half the second difference
        expected = (flipped / (4 * worth)).clamp(min=0.3)
        torch.testing.assert_close(leans[name].flatten()[4].abs(), expected, rtol=1e-4, atol=1e-4)


def test_a_tensor_that_layers_share_is_one_number_to_train_where_all_of_them_are_here() -> None:
    child = Packed("dense", 2, 4, {"weight": torch.ones(2, 4).half()})
    tensors = {"gain": torch.ones(4).half(), "signs": pack(torch.ones(4), 1)}
    tree = Packed("rotated", 2, 4, tensors, {}, (child,), {"gain": ("q/gain", 2), "signs": ("q/signs", 2)})
    both, one = StoredForms({"q": tree, "k": tree}), StoredForms({"q": tree})
    assert sorted(both.floats) == [("", "q/gain"), ("k", "0.weight"), ("q", "0.weight")]
    assert sorted(one.floats) == [("q", "0.weight")], "the other layer would lose its gain"
    with torch.no_grad():
        both.floats["", "q/gain"].step.add_(1)
    gains = [both.tree(name, rounded=True).tensors["gain"] for name in "qk"]
    assert all(torch.equal(gain, torch.full((4,), 2.0).half()) for gain in gains)


@pytest.mark.parametrize("spread", [0.0, 1e-3, 0.5])
def test_angles_turn_alike_however_large_they_are(spread: float) -> None:
    child = Packed("dense", 2, 3, {"weight": torch.ones(2, 3).half()})
    tree = Packed("rotated", 2, 3, {"right": torch.full((3,), spread).half()}, {"factors": [1, 3]}, (child,))
    forms = StoredForms({"q": tree})
    with torch.no_grad():
        forms.floats["q", "right"].step.add_(0.25)
    turned = forms.tree("q", rounded=False).tensors["right"] - tree.tensors["right"]
    torch.testing.assert_close(turned, torch.full((3,), 0.25))
