"""Runs over layers: plans, shared codebooks, progress, and mistakes found before the first layer runs."""

import pytest
import torch
from torch import Tensor

from tests.battery.cases import correlated, gaussian
from workbench import presets, registry
from workbench.calibration import CalibrationStats, Source
from workbench.errors import ModelError, RecipeError, ShapeError
from workbench.input_sums import LayerStats
from workbench.kernels.packing.packed import count_stored_bits
from workbench.models import ModelHandle
from workbench.models.layers import Layer, select_layers
from workbench.presets.preset import compose
from workbench.quantizers import LayerProgress, quantize, quantize_model, quantize_model_steps, quantize_steps
from workbench.quantizers.contract import Snapshot
from workbench.recipe import LayerPlan, Recipe

NAMES = [f"blocks.{block}.{matrix}" for block in range(2) for matrix in ("attn.q", "attn.o", "mlp.up")]


class Weights:
    """Random matrices behind what quantizers use of a model, which has nothing but these layers."""

    source = "random"
    layer_names = NAMES
    optional_names: tuple[str, ...] = ()
    streams = is_rewritten = False
    head_name = embedding_name = None
    router_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.read: list[str] = []
        self.shapes = {f"{name}.weight": (48 if name.endswith("up") else 24, 60) for name in NAMES}

    def select(self, patterns: str) -> list[str]:
        return select_layers(NAMES, (), patterns)

    def layer(self, name: str) -> Layer:
        return Layer(
            name, int(name.split(".")[1]), name.split(".", 2)[2], *self.shapes[f"{name}.weight"], "float32", transposed=False
        )

    def weight(self, name: str) -> Tensor:
        self.read.append(name)
        return gaussian(48 if name.endswith("up") else 24, 60, seed=NAMES.index(name))


@pytest.fixture
def model() -> Weights:
    return Weights()


@pytest.fixture(scope="module")
def stats() -> CalibrationStats:
    moment = correlated(60)
    layer = LayerStats(moment, torch.zeros(60), torch.ones(60), 100)
    return CalibrationStats(dict.fromkeys(NAMES, layer), [Source("noise", "0", 100, 7)])


def codebook(scope: str) -> Recipe:
    return compose(registry.make("coder", "binary-codebook", scope=scope, entries=64))


def test_every_layer_is_what_it_is_alone(model: Weights, stats: CalibrationStats) -> None:
    recipe = presets.recipe("gptq", bits=3, group=20)
    result = quantize_model(model, recipe, stats)
    assert list(result.layers) == NAMES
    for name in NAMES:
        alone = quantize(model, name, recipe, stats)
        assert torch.equal(result.layers[name].weight(), alone.weight())
        assert result.layers[name].ledger == alone.ledger
    assert (result.source, result.plan) == ("random", LayerPlan.uniform(recipe))
    shrinkage = pytest.approx([6 / 106, 6 / 106])  # 0.1 · 60 tokens of 100 and these
    assert result.calibration == {"text": "noise", "fingerprint": "0", "tokens": 100, "seed": 7, "shrinkage": shrinkage}


@pytest.mark.parametrize(("scope", "books"), [("matrix", 6), ("projection", 3), ("model", 1)])
def test_layers_of_a_scope_store_one_codebook_together(model: Weights, scope: str, books: int) -> None:
    result = quantize_model(model, codebook(scope))
    stored = {}
    for name, layer in result.layers.items():
        key, sharers = layer.packed.shared.get("codebook", (name, 1))
        stored.setdefault(key, layer.packed.tensors["codebook"])
        assert torch.equal(stored[key], layer.packed.tensors["codebook"])
        assert sharers == 6 // books
        assert ("codebook" in layer.packed.shared) == (scope != "matrix")
    assert len(stored) == books
    codes = sum(
        count_stored_bits(tensor)
        for layer in result.layers.values()
        for item, tensor in layer.packed.tensors.items()
        if item != "codebook"
    )
    assert result.ledger.total_bits == pytest.approx(codes + sum(count_stored_bits(book) for book in stored.values()))


def test_a_shared_codebook_knows_all_its_layers(model: Weights) -> None:
    """It cannot beat a codebook of one's own, and it differs from the one that the first layer alone would get."""
    own, shared = quantize_model(model, codebook("matrix")), quantize_model(model, codebook("model"))
    first = NAMES[0]
    assert not torch.equal(own.layers[first].packed.tensors["codebook"], shared.layers[first].packed.tensors["codebook"])
    total = [sum(layer.relative_error for layer in result.layers.values()) for result in (own, shared)]
    assert total[0] < total[1]


def test_rules_of_a_plan_do_not_share(model: Weights) -> None:
    plan = LayerPlan((("blocks.0.*", codebook("model")), ("*", codebook("model"))))
    result = quantize_model(model, plan)
    keys = {name: layer.packed.shared["codebook"] for name, layer in result.layers.items()}
    assert {keys[name] for name in NAMES[:3]} == {("0:model/codebook", 3)}
    assert {keys[name] for name in NAMES[3:]} == {("1:model/codebook", 3)}


def test_layers_without_a_rule_stay(model: Weights) -> None:
    plan = LayerPlan((("*.attn.q", presets.recipe("rtn", bits=2)), ("*.mlp.*", presets.recipe("none"))))
    result = quantize_model(model, plan, layers="blocks.1.*")
    assert {name: layer.nominal_bits for name, layer in result.layers.items()} == {"blocks.1.attn.q": 2, "blocks.1.mlp.up": 32}


def test_progress_names_every_layer_and_never_runs_backwards(model: Weights) -> None:
    seen: list[LayerProgress] = []
    result = quantize_model(model, codebook("projection"), on_progress=seen.append)
    fractions = [step.fraction for step in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert [step.layer for step in seen if step.event == "done"] == NAMES
    assert [step.layer for step in seen if step.event == "share"] == NAMES[:3]
    assert [step.result for step in seen if step.event == "done"] == list(result.layers.values())


def test_a_stopped_run_reads_no_further_layer(model: Weights) -> None:
    steps = quantize_model_steps(model, presets.recipe("rtn"))
    next(steps)
    steps.close()
    assert model.read == NAMES[:1]


def test_one_layer_as_a_generator(model: Weights, stats: CalibrationStats) -> None:
    seen: list[Snapshot] = []
    result = quantize(model, NAMES[0], presets.recipe("btc"), stats, seen.append)
    assert [s.event for s in quantize_steps(model, NAMES[0], presets.recipe("btc"), stats)] == [s.event for s in seen]
    assert result.name == NAMES[0]


def test_mistakes_are_found_before_the_first_layer(model: Weights, stats: CalibrationStats) -> None:
    part = CalibrationStats({name: stats[name] for name in NAMES[:5]}, stats.sources)
    with pytest.raises(RecipeError, match="assignment 'column-feedback' needs calibration; pass stats="):
        quantize_model(model, presets.recipe("gptq"))
    with pytest.raises(
        RecipeError, match="layer 'blocks.1.mlp.up' was not calibrated, but assignment 'column-feedback' needs it"
    ):
        quantize_model(model, presets.recipe("gptq"), part)
    with pytest.raises(RecipeError, match=r"layers 'h\.\*' with the plan's '\*' match none of 6 layers; names look like 'blocks"):
        quantize_model(model, presets.recipe("rtn"), layers="h.*")
    assert model.read == []


def test_uncalibrated_layers_are_fine_where_nothing_needs_them(model: Weights, stats: CalibrationStats) -> None:
    part = CalibrationStats({NAMES[0]: stats[NAMES[0]]}, stats.sources)
    result = quantize_model(model, presets.recipe("rtn"), part)
    assert [layer.output_error is not None for layer in result.layers.values()] == [True, *[False] * 5]


def test_a_bad_weight_among_those_that_share_is_a_sentence(model: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Weights, "weight", lambda self, name: torch.full((4, 60), torch.nan))
    with pytest.raises(ShapeError, match="240 of 240 weights are NaN or infinite"):
        quantize_model(model, codebook("model"))


def test_an_unknown_layer_of_a_real_model(builtin: ModelHandle) -> None:
    with pytest.raises(ModelError, match=r"model\.layers\.0\.mlp\.down_proj"):
        quantize(builtin, "model.layers.0.mlp.down_pro", presets.recipe("rtn"))
