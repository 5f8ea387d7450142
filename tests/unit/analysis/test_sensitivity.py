"""Sensitivity, scores and error budgets against what-if, plain torch and their own definitions."""

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.analysis import glossary
from workbench.analysis.decisions.error_budget import ErrorBudget, error_budget, error_budget_steps
from workbench.analysis.decisions.layer_scores import compute_cluster_entropy, layer_scores
from workbench.analysis.predictions.sensitivity import sensitivity, sensitivity_steps
from workbench.analysis.predictions.suffix_replay import Replay
from workbench.errors import ModelError, RecipeError
from workbench.jobs import Job
from workbench.models import ModelHandle
from workbench.models.text import Text
from workbench.store import Store

STORIES = Text(
    "stories",
    (
        "Tom had a red ball. He threw it high and his dog ran after it.",
        "A small bird sat on the roof and sang a song.",
        "Lily and her mom went to the park to play.",
    ),
)
RECIPES = {"none": wb.recipe("none"), "two": wb.recipe("rtn", bits=2, group=64)}
LAYERS = "model.layers.[25].mlp.*"


@pytest.fixture(scope="module")
def replay(builtin: ModelHandle) -> Replay:
    return Replay(builtin, STORIES)


@pytest.fixture(scope="module")
def budget(builtin: ModelHandle, replay: Replay) -> ErrorBudget:
    return error_budget(replay, wb.quantize_model(builtin, RECIPES["two"], layers=LAYERS).layers, top=3)


def test_rows_are_what_ifs(builtin: ModelHandle, replay: Replay) -> None:
    table = sensitivity(replay, RECIPES, layers=LAYERS)
    assert len(table) == 6 * 2
    row = table[(table["recipe"] == "two")].iloc[3]
    found = wb.what_if(builtin, row["name"], RECIPES["two"], STORIES)
    assert (row["kl"], row["kl_low"], row["kl_high"]) == pytest.approx((found.kl, *found.kl_interval))
    assert row["bits"] == found.layer.ledger.total_bits
    nothing = table[table["recipe"] == "none"]
    assert (nothing["kl"] == 0).all()
    assert not nothing["significant"].any()
    assert table.loc[table["recipe"] == "two", "significant"].all()
    assert all(glossary.label_column(name) != name or name in glossary.COLUMNS for name in table)


def test_rows_are_kept_by_content(replay: Replay, tmp_path: object) -> None:
    store = Store(str(tmp_path))
    first = sensitivity(replay, RECIPES, layers="*.5.mlp.up_proj", store=store)
    assert len(list(store.items())) == 2
    steps: list[object] = []
    second = sensitivity(replay, RECIPES, layers="*.5.mlp.up_proj", store=store, on_progress=steps.append)
    assert first.equals(second)
    assert [step.fraction for step in steps] == [0.5, 1.0]  # type: ignore[attr-defined]
    other = Replay(replay.model, STORIES, tokens=20)
    shorter = sensitivity(other, RECIPES, layers="*.5.mlp.up_proj", store=store)
    assert shorter["kl"].iloc[1] != first["kl"].iloc[1]


def test_it_runs_as_a_job(replay: Replay) -> None:
    job = Job(lambda: sensitivity_steps(replay, RECIPES, layers="*.5.mlp.up_proj")).run_here()
    assert len(job.result()) == 2


def test_half_precision_is_the_floor(replay: Replay) -> None:
    """bfloat16 has 8 bits of precision: its noise is there, and far below two-bit weights."""
    assert 0 < replay.noise.kl < 1e-3
    lm, ids = replay.model.language_model(), replay.spans[0].window
    with torch.autocast("cpu", torch.bfloat16):
        half = lm.logits(ids)[0, :-1].log_softmax(-1)
    whole = lm.logits(ids)[0, :-1].log_softmax(-1)
    expected = (whole.exp() * (whole - half)).sum(-1).mean()
    own = replay.noise.per_token
    assert own.kl[own.document == 0].mean() == pytest.approx(float(expected), rel=0.05)


def test_budget_adds_up_by_its_definitions(builtin: ModelHandle, replay: Replay, budget: ErrorBudget) -> None:
    layers = budget.layers
    assert budget.total == pytest.approx(layers["kl"].sum())
    assert budget.ratio == pytest.approx(budget.joint.kl / budget.total)
    assert layers["accumulated"].iloc[-1] == budget.joint.kl
    assert layers["accumulated"].iloc[0] == pytest.approx(layers["kl"].iloc[0])
    assert budget.ratio_interval[0] < budget.ratio < budget.ratio_interval[1]
    worst = set(layers.nlargest(3, "kl")["name"])
    assert len(budget.pairs) == 3
    assert set(budget.pairs["earlier"]) | set(budget.pairs["later"]) == worst
    pair = budget.pairs.iloc[0]
    quantized = {name: wb.quantize(builtin, name, RECIPES["two"]) for name in (pair["earlier"], pair["later"])}
    alone = [replay.divergence({name: layer}).kl for name, layer in quantized.items()]
    assert pair["interaction"] == pytest.approx(replay.divergence(quantized).kl - sum(alone), abs=1e-9)
    assert pair["interaction_low"] <= pair["interaction"] <= pair["interaction_high"]


def test_budget_steps_and_a_single_layer(builtin: ModelHandle, replay: Replay) -> None:
    name = builtin.layer_names[-1]
    job = Job(lambda: error_budget_steps(replay, {name: wb.quantize(builtin, name, RECIPES["two"])})).run_here()
    found = job.result()
    assert found.ratio == pytest.approx(1.0)
    assert found.pairs.empty
    assert list(found.pairs.columns)[:2] == ["earlier", "later"]


def test_scores_need_a_cluster(builtin: ModelHandle) -> None:
    with pytest.raises(ModelError, match="0 clusters; use 1 or more"):
        layer_scores(builtin, STORIES, clusters=0)


def test_scores(builtin: ModelHandle) -> None:
    table = layer_scores(builtin, STORIES, clusters=8)
    assert len(table) == len(builtin.layer_names)
    assert (table.groupby("block")[["lim", "zd", "entropy"]].nunique() == 1).all().all()
    lm, block = builtin.language_model(), 3
    cosines, shares = [], []
    for document in STORIES.documents:
        with torch.no_grad():
            states = lm.module(lm.encode(document)[:, :], output_hidden_states=True).hidden_states
        cosines.append(torch.cosine_similarity(states[block].double(), states[block + 1].double(), dim=-1)[0])
    row = table[table["block"] == block].iloc[0]
    assert row["lim"] == pytest.approx(-float(torch.cat(cosines).mean()), rel=1e-5)
    weights = torch.cat([builtin.weight(name).double().flatten() for name in builtin.layer_names if f".{block}." in name])
    shares = (weights > weights.mean() + weights.std()).double().mean()
    assert row["zd"] == pytest.approx(-float(shares))


def test_entropy_of_clusters() -> None:
    directions = torch.eye(8)[torch.arange(64) % 4]  # four directions, equally often
    spread = directions * torch.rand(64, 1, generator=torch.Generator().manual_seed(0)).add(0.5)  # length does not matter
    assert compute_cluster_entropy(spread, 4, seed=3) <= 2.0
    assert compute_cluster_entropy(spread[:1].expand(9, -1), 1, seed=0) == 0.0
    assert np.isclose(max(compute_cluster_entropy(spread, 4, seed) for seed in range(20)), 2.0)


def test_mistakes(replay: Replay) -> None:
    with pytest.raises(RecipeError, match=r"0 layers match 'nothing' and 2 recipes are given"):
        sensitivity(replay, RECIPES, layers="nothing")
    with pytest.raises(RecipeError, match="no layer is quantized, so there is no error to measure"):
        error_budget(replay, {})
