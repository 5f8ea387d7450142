"""One battery for every registered part: a new part joins by registering itself."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

import workbench
from tests.battery.cases import (
    MATRICES,
    MOMENTS,
    VARIANTS,
    correlated,
    gaussian,
    guard,
    moment_for,
    pair_with,
    quantize,
    recipe_with,
    shared,
    snapshots,
)
from workbench import presets, registry
from workbench.analysis.method.coded_basis import extract_coded_basis
from workbench.errors import RecipeError, ShapeError
from workbench.kernels import formats
from workbench.kernels.formats.rounding import find_rounding_bits
from workbench.kernels.packing.packed import Packed
from workbench.presets.preset import compose
from workbench.quantizers.contract import Activations, Assignment, Coder, Layout, QuantizerPart, Split, Transform
from workbench.recipe import Part, Recipe, parse_part

every_part = pytest.mark.parametrize("part", VARIANTS.values(), ids=VARIANTS.keys())
# quantizes: on each commit every part as it is by default, and in the complete suite with every other setting
every_result = pytest.mark.parametrize("name", [pytest.param(name, marks=guard(name)) for name in VARIANTS])


def of(kind: type[Part]) -> pytest.MarkDecorator:
    """Parametrize over the variants of one kind of part."""
    chosen = {name: part for name, part in VARIANTS.items() if isinstance(part, kind)}
    return pytest.mark.parametrize("part", chosen.values(), ids=chosen.keys())


@every_part
def test_json_gives_the_same_part_back(part: Part) -> None:
    recipe = recipe_with(part)
    assert parse_part(part.kind, json.loads(json.dumps(part.to_dict()))) == part
    assert Recipe.from_json(recipe.to_json()) == recipe


@every_part
def test_printed_code_makes_the_same_recipe(part: Part) -> None:
    recipe = recipe_with(part)
    assert eval(recipe.code(), {"wb": workbench}) == recipe


@every_part
def test_every_setting_has_help_and_refuses_what_is_out_of_range(part: Part) -> None:
    for field in dataclasses.fields(part):
        assert field.metadata["help"]
        if field.metadata["high"] is not None:
            with pytest.raises(RecipeError, match=rf"{part.kind} '{part.name}': {field.name} is .*; it must be from"):
                dataclasses.replace(part, **{field.name: type(field.default)(field.metadata["high"] + 1)})
        if field.metadata["choices"] is not None:
            with pytest.raises(RecipeError, match=rf"{part.kind} '{part.name}': {field.name} is 'nonsense'; use one of"):
                dataclasses.replace(part, **{field.name: "nonsense"})


@every_result
def test_same_result_twice(name: str) -> None:
    _, w, first = shared(name)
    second = quantize(recipe_with(VARIANTS[name]), w, correlated(203))
    for (path, one), (_, two) in zip(first.packed.walk(), second.packed.walk(), strict=True):
        for tensor in one.tensors:
            assert torch.equal(one.tensors[tensor], two.tensors[tensor]), path + tensor


@pytest.mark.filterwarnings("ignore:layer 'weight'")  # sizes that fp16 cannot say are warned of, see test_misfits
@pair_with("name, matrix", MATRICES, hardest=("ragged", "huge", "one-outlier"))
def test_finite_on_any_matrix(name: str, matrix: str) -> None:
    recipe, w = recipe_with(VARIANTS[name]), MATRICES[matrix]
    result = quantize(recipe, w, moment_for(recipe, w.shape[1]))
    assert result.weight().shape == w.shape
    assert torch.isfinite(result.weight()).all()
    if matrix == "zeros":
        assert result.relative_error == 0


@pair_with("name, moment", MOMENTS)
def test_finite_under_any_moment(name: str, moment: str) -> None:
    w = gaussian(12, 48)
    result = quantize(recipe_with(VARIANTS[name]), w, MOMENTS[moment])
    assert torch.isfinite(result.weight()).all()
    if moment == "one-token" and getattr(VARIANTS[name], "rule", "") == "moment":
        return  # ARB-X as released fits a mean and a scale to one number a row; it is finite, and as wild as it was published
    assert result.relative_error < 10


@every_result
def test_ledger_is_the_bytes_of_the_saved_tensors(name: str) -> None:
    _, w, result = shared(name)
    tensors = {path + name: t.contiguous() for path, node in result.packed.walk() for name, t in node.tensors.items()}
    blob = save(tensors)
    assert result.ledger.total_bits == 8 * (len(blob) - 8 - int.from_bytes(blob[:8], "little"))
    assert result.ledger.weights == w.numel()
    assert result.bits_per_weight == result.ledger.total_bits / w.numel()
    assert all(entry.why for entry in result.ledger.entries)


@every_result
def test_other_input_types_are_read_exactly(name: str) -> None:
    recipe, h = recipe_with(VARIANTS[name]), moment_for(recipe_with(VARIANTS[name]), 80)
    w = gaussian(8, 80).bfloat16()  # numbers that every type holds
    expected = quantize(recipe, w.float(), h).weight()
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(w.to(dtype).double(), w.double())
        assert torch.equal(quantize(recipe, w.to(dtype), h).weight(), expected), dtype


@every_part
def test_bad_input_gets_a_clear_sentence(part: Part) -> None:
    recipe, w = recipe_with(part), gaussian(4, 64)
    bad = w.clone()
    bad[0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    with pytest.raises(ShapeError, match=r"a weight of shape \[64\] cannot be quantized; give a matrix"):
        quantize(recipe, w[0])
    with pytest.raises(ShapeError, match=r"a weight of shape \[0, 64\] cannot be quantized"):
        quantize(recipe, w[:0])
    with pytest.raises(ShapeError, match="3 of 256 weights are NaN or infinite; repair the checkpoint"):
        quantize(recipe, bad)
    with pytest.raises(ShapeError, match=r"second moment of shape \[63, 63\] does not fit 64 columns; it must be \[64, 64\]"):
        quantize(recipe, w, correlated(63))
    with pytest.raises(ShapeError, match="second moment holds NaN or infinite values; calibrate again"):
        quantize(recipe, w, torch.full((64, 64), torch.nan))


@every_part
def test_a_part_that_needs_calibration_says_so(part: QuantizerPart) -> None:
    recipe, w = recipe_with(part), gaussian(8, 64)
    if part.needs_moment:
        with pytest.raises(RecipeError, match=f"{part.kind} '{part.name}' needs calibration; pass stats="):
            quantize(recipe, w)
    else:
        assert quantize(recipe, w).output_error is None


@every_result
def test_progress_runs_from_the_first_column_to_the_last(name: str) -> None:
    seen, _, result = shared(name)
    done = [snapshot.done for snapshot in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1].total == 203
    assert seen[-1].event in ("refit", "correction")
    assert result.seconds > 0


@of(Split)
@pytest.mark.parametrize("matrix", MATRICES)
def test_masks_are_a_partition(part: Split, matrix: str) -> None:
    w = MATRICES[matrix]
    masks = part.masks(w, correlated(w.shape[1]))
    assert len(masks) == part.parts == len(part.shares)
    assert torch.equal(torch.stack(masks).sum(0), torch.ones_like(w, dtype=torch.int64))
    assert sum(part.shares) == pytest.approx(1)


@of(Split)
def test_masks_hold_the_shares_they_promise(part: Split) -> None:
    """Exactly, or about: what is searched for is not known before."""
    held = [mask.float().mean().item() for mask in part.masks(gaussian(50, 200), correlated(200))]
    assert held == pytest.approx(part.shares, abs=0.001 if part.fixed_shares else 0.25)


@of(Coder)
def test_coding_its_own_values_changes_nothing(part: Coder) -> None:
    w = gaussian(16, 240)[:, : part.span(240)]
    everywhere = slice(0, w.shape[1])
    params = part.fit(w, torch.ones_like(w, dtype=torch.bool), part.prepare([w]), correlated(w.shape[1])).params
    values = part.decode(part.encode(w, params, everywhere), params, everywhere)
    again = part.decode(part.encode(values, params, everywhere), params, everywhere)
    torch.testing.assert_close(again, values, rtol=1e-6, atol=1e-7)


@every_result
def test_nearest_codes_are_never_worse_and_those_of_its_own_values_are_the_same(name: str) -> None:
    _, w, result = shared(name)
    stored, goal, _ = extract_coded_basis(result.packed, w)
    values = formats.decode(stored)
    torch.testing.assert_close(formats.decode(formats.recode_nearest(stored, values)), values)
    nearer = formats.decode(formats.recode_nearest(stored, goal))
    assert (nearer - goal).square().sum() <= (values - goal).square().sum() * (1 + 1e-5)


@of(Coder)
def test_sweeps_never_raise_the_error(part: Coder) -> None:
    w = gaussian(16, 240)[:, : part.span(240)]
    mask = gaussian(16, w.shape[1], seed=5) > -1 if not part.full_mask_only else torch.ones_like(w, dtype=torch.bool)
    fit = part.fit(w, mask, part.prepare([w]), None)
    assert list(fit.sweeps) == sorted(fit.sweeps, reverse=True)
    assert len(fit.path) == len(fit.sweeps)


@of(Coder)
def test_steps_tile_spans(part: Coder) -> None:
    for cols in (part.step(960), 240, 960):
        span, step = part.span(cols), part.step(cols)
        assert 1 <= span <= cols
        assert span % step == 0 or span == cols


@of(Coder)
def test_stored_form_decodes_to_the_values_that_were_coded(part: Coder) -> None:
    if hasattr(part, "rescale"):
        part = dataclasses.replace(part, rescale=False)
    seen, result = snapshots(compose(part), gaussian(16, 203), correlated(203))
    coded = [s for s in seen if s.event == "block"][-1]
    assert coded.weight is not None
    assert torch.equal(result.weight(), coded.weight)


@of(Coder)
def test_a_masked_coder_stores_only_its_own_weights(part: Coder) -> None:
    split = registry.make("split", "top-elements", share=0.25)
    recipe = compose(registry.make("coder", "uniform", bits=2), part, split=split)
    if part.full_mask_only:
        with pytest.raises(RecipeError, match=f"coder '{part.name}' codes whole vectors; use it with split 'whole'"):
            quantize(recipe, gaussian(16, 160))
        return
    w = gaussian(16, 160)
    masked = quantize(recipe, w, correlated(160)).packed.children[1]
    if part.nominal_bits == 0:
        assert not masked.tensors
        return
    alone = quantize(compose(part), w, correlated(160)).packed
    code = next(iter(alone.tensors))
    assert masked.tensors[code].numel() == alone.tensors[code].numel() // 4


BUDGETS = {
    ("coder", "uniform"): ("bits", [1, 2, 3, 4, 5, 6, 7, 8]),
    ("coder", "sign"): ("planes", [1, 2]),
    ("coder", "released-sign"): ("planes", [1, 2]),
    ("coder", "ternary"): ("planes", [1, 2, 3]),
    ("coder", "binary-codebook"): ("entries", [4, 16, 64, 256, 512, 1024]),
    ("coder", "vector-codebook"): ("entries", [4, 16, 64, 256, 512, 1024]),
    ("coder", "trellis"): ("bits", [1, 2, 4, 6, 8, 10]),
    ("coder", "binary-factors"): ("bits", [0.4, 0.6, 0.9, 1.4]),
    ("coder", "codebook-planes"): ("entries", [4, 16, 64, 256, 512, 1024]),
    ("coder", "parity-signs"): ("length", [2, 3, 5, 10, 20]),
    ("split", "top-elements"): ("share", [0.0, 0.05, 0.2, 0.5, 1.0]),
    ("split", "groups"): ("groups", [1, 2, 3]),
    ("split", "released-groups"): ("salient_groups", [1, 2]),
    ("split", "salient-columns"): ("share", [0.0, 0.05, 0.2, 0.5, 1.0]),
    ("split", "widest-groups"): ("share", [0.0, 0.05, 0.2, 0.5, 1.0]),
    ("correction", "low-rank"): ("rank", [1, 2, 8, 32, 128]),
}
NO_BUDGET = {("coder", "keep"), ("coder", "zero"), ("split", "whole"), ("correction", "none")}


def test_every_part_that_spends_bits_has_a_budget_here() -> None:
    spending = {(kind, name) for kind in ("coder", "split", "correction") for name in registry.list_names(kind)}
    assert spending == {*BUDGETS, *NO_BUDGET}


@pytest.mark.parametrize(("kind", "name"), BUDGETS, ids=[f"{kind}-{name}" for kind, name in BUDGETS])
@pytest.mark.parametrize("calibrated", [False, True], ids=["plain", "calibrated"])
def test_more_budget_never_hurts(kind: str, name: str, calibrated: bool) -> None:
    field, values = BUDGETS[kind, name]
    w, recipes = gaussian(64, 240), [recipe_with(registry.make(kind, name, **{field: value})) for value in values]
    results = [quantize(recipe, w, correlated(240) if calibrated else moment_for(recipe, 240)) for recipe in recipes]
    errors, bits = [result.error for result in results], [result.bits_per_weight for result in results]
    assert errors == sorted(errors, reverse=True)
    assert bits == sorted(bits)


STORED_STATES = {
    "column-scale": {"scale"},
    "hadamard": {"signs"},
    "identity": set(),
    "learned": {"gain", "signs", "left", "right"},
    "permutation": {"order"},
}  # names in the stores of users: an interrupted run reads them again


@of(Transform)
def test_a_state_is_read_back_from_its_tensors_under_the_names_that_stores_know(part: Transform) -> None:
    tensors = {name: torch.zeros(3) for name in STORED_STATES[part.name]}
    state, fitted = part.read_state(tensors), part.fit(gaussian(12, 96), correlated(96), seed=3)
    assert type(state) is type(fitted)
    assert fitted.tensors().keys() <= tensors.keys() == state.tensors().keys()
    assert all(getattr(state, name) is tensor for name, tensor in tensors.items())


@of(Transform)
def test_a_transform_keeps_the_output(part: Transform) -> None:
    w, h = gaussian(12, 96), correlated(96)
    state = part.fit(w, h, seed=3)
    inner, moment = part.forward(w, state), part.moment(h, state)
    torch.testing.assert_close(inner @ moment @ inner.T, w @ h @ w.T, rtol=1e-4, atol=1e-3)
    packed = part.pack(Packed("dense", 12, 96, {"weight": inner}), state)
    torch.testing.assert_close(formats.decode(packed), w, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(extract_coded_basis(packed, w)[1], inner, rtol=1e-4, atol=1e-4)
    x = gaussian(5, 96, seed=9)
    torch.testing.assert_close(formats.linear(x, packed), x @ w.T, rtol=1e-4, atol=1e-4)


@of(Assignment)
@pytest.mark.parametrize("layout", [Layout(203, 1, 203), Layout(203, 10, 203), Layout(203, 1, 64), Layout(203, 8, 16)], ids=str)
def test_every_column_is_coded_once_in_whole_steps(part: Assignment, layout: Layout) -> None:
    times = torch.zeros(203, dtype=torch.int64)

    def quantize(current: Tensor, start: int, stop: int, metric: Tensor | None = None) -> Tensor:
        assert start % layout.step == 0
        assert stop % layout.step == 0 or stop == layout.cols
        times[start:stop] += 1
        return current[:, start:stop].round()

    *_, last = part.run(gaussian(4, 203), correlated(203), layout, quantize)
    assert torch.equal(times, torch.ones_like(times))
    assert torch.equal(last, last.round())


@of(Assignment)
def test_coding_without_error_moves_nothing(part: Assignment) -> None:
    w = gaussian(4, 150)

    def keep(current: Tensor, start: int, stop: int, metric: Tensor | None = None) -> Tensor:
        return current[:, start:stop].clone()

    *_, last = part.run(w.clone(), correlated(150), Layout(150, 1, 150), keep)
    assert torch.equal(last, w)


@of(Activations)
def test_rounding_inputs_leaves_the_stored_matrix_alone(part: Activations) -> None:
    w, h = gaussian(16, 96), correlated(96)
    plain = quantize(presets.recipe("btc", bits=1, transform="hadamard"), w, h)
    rounded = quantize(presets.recipe("btc", bits=1, transform="hadamard").replace(activations=part), w, h)
    assert torch.equal(rounded.weight(), plain.weight())
    assert rounded.ledger.total_bits == plain.ledger.total_bits
    assert torch.equal(extract_coded_basis(rounded.packed, w)[1], extract_coded_basis(plain.packed, w)[1])
    x = gaussian(5, 96, seed=9)
    y, exact = formats.linear(x, rounded.packed), x @ plain.weight().T
    bits = find_rounding_bits(rounded.packed)
    error = float((y - exact).norm() / exact.norm())
    assert error < 1e-5 if bits is None else 1e-4 < error < 2.0 ** (2 - bits)
