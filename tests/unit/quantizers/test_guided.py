"""Guided moments at work: groups of rows against the same rows by themselves, and the objective that is made small."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.battery.cases import correlated, gaussian
from tests.same_layers import assert_same_layers
from workbench import presets
from workbench.guided_moments import GuidedMoments, split_rows
from workbench.jobs import run_steps
from workbench.models import open_model
from workbench.models.text import Text
from workbench.quantizers import quantize_model
from workbench.quantizers.coders.fitting import least_squares, vector_kmeans
from workbench.quantizers.coders.fitting.admm_factors import Target
from workbench.quantizers.pipeline import quantize_layer
from workbench.quantizers.runs.quantize_model import quantize_model_steps
from workbench.store import Store

TEXT = Text("stories", ("Tom had a red ball. He ran home.", "A cat sat on my hat.", "The dog is big. The ant is not."))
ROWS, COLS = 24, 64
# error feedback by column and by block, codewords of several columns, a trellis, a split with several coders
RECIPES = (
    "gptq:bits=2,group=32",
    "gptq:bits=2,group=32,act_order=yes,static_groups=yes",
    "binary:compensation=yes",
    "btc:bits=0.8,scope=matrix",
    "qtip:bits=2",
    "billm:block=32",
)


def moments(*seeds: int) -> GuidedMoments:
    """Moments that differ much between groups of rows, one for each seed."""
    strengths = [torch.logspace(-0.5, 0.5, COLS).roll(seed * COLS // 3) for seed in seeds]
    groups = torch.stack([correlated(COLS, seed=seed) * s * s[:, None] for seed, s in zip(seeds, strengths, strict=True)])
    weight = groups.diagonal(dim1=1, dim2=2).mean(1)
    rows = torch.cat([weight[i].expand(part.stop - part.start) for i, part in enumerate(split_rows(ROWS, len(seeds)))])
    return GuidedMoments(groups, rows, weight, weight.square(), 10_000)


def cost(error: Tensor, guided: GuidedMoments) -> float:
    """Σ_g tr(E_g H_g E_gᵀ)."""
    parts = zip(split_rows(len(error), len(guided.groups)), guided.groups, strict=True)
    return sum(torch.einsum("rc,cd,rd->", error[part], h, error[part]).item() for part, h in parts)


@pytest.mark.parametrize("recipe", RECIPES[:3])
def test_each_group_is_coded_as_if_it_were_alone(recipe: str) -> None:
    """Where rows share nothing, a group of rows under its moment is what these rows are under it by themselves."""
    w, guided, chosen = gaussian(ROWS, COLS), moments(1, 2, 3), presets.parse(recipe).replace(shrinkage=0.0)
    plain = guided.mean
    result = run_steps(quantize_layer(w, plain, chosen.replace(guided=3), guided=guided)).weight()
    for part, h in zip(split_rows(ROWS, 3), guided.groups, strict=True):
        alone = run_steps(quantize_layer(w[part], h, chosen)).weight()
        same = torch.isclose(result[part], alone, rtol=1e-3, atol=1e-3).double().mean()
        # the order of the columns is that of the mean moment, which all groups share
        assert same > (0.99 if "act_order" not in recipe else 0.3)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_guided_objective_is_what_becomes_small(recipe: str) -> None:
    w, guided, chosen = gaussian(ROWS, COLS), moments(1, 2), presets.parse(recipe).replace(shrinkage=0.0)
    plain = guided.mean
    by_mean = run_steps(quantize_layer(w, plain, chosen)).weight()
    by_group = run_steps(quantize_layer(w, plain, chosen.replace(guided=2), guided=guided)).weight()
    assert cost(by_group - w, guided) < cost(by_mean - w, guided)


def test_equal_groups_are_the_plain_moment() -> None:
    w, h = gaussian(ROWS, COLS), correlated(COLS)
    same = GuidedMoments(h.expand(3, COLS, COLS), torch.ones(ROWS), torch.ones(3), torch.ones(3), 500)
    for recipe in ("gptq:bits=2,group=32,clip=moment", RECIPES[3], RECIPES[5]):
        chosen = presets.parse(recipe)
        plain = run_steps(quantize_layer(w, h, chosen, tokens=500))
        guided = run_steps(quantize_layer(w, h, chosen.replace(guided=3), tokens=500, guided=same))
        torch.testing.assert_close(guided.weight(), plain.weight(), rtol=1e-3, atol=1e-4)
        assert guided.ledger == plain.ledger


def test_scales_are_solved_for_each_group() -> None:
    target, basis, guided = gaussian(ROWS, COLS), gaussian(ROWS, COLS, 5).sign()[None], moments(1, 2, 3)
    solved = least_squares.solve_least_squares(target, basis, 32, guided.groups)
    for part, h in zip(split_rows(ROWS, 3), guided.groups, strict=True):
        torch.testing.assert_close(solved[:, part], least_squares.solve_least_squares(target[part], basis[:, part], 32, h))
        expected = least_squares.compute_row_cost(target[part], h)
        torch.testing.assert_close(least_squares.compute_row_cost(target, guided.groups)[part], expected)


def test_codewords_are_chosen_for_each_group() -> None:
    w, words, scale = gaussian(ROWS, 8), gaussian(16, 4, 3), torch.ones(ROWS, 1)
    metrics = torch.stack([correlated(8, seed=1), correlated(8, seed=2)]).double()
    codes = vector_kmeans.find_nearest_under_metric(metrics, w, scale, words)
    for part, metric in zip(split_rows(ROWS, 2), metrics, strict=True):
        assert torch.equal(codes[part], vector_kmeans.find_nearest_under_metric(metric, w[part], scale[part], words))
    assert not torch.equal(codes, vector_kmeans.find_nearest_under_metric(metrics[0], w, scale, words))


def test_factors_weigh_rows() -> None:
    w, rows = gaussian(ROWS, COLS), torch.logspace(-2, 2, ROWS)
    chosen = presets.parse("binary-factors:bits=1.5,sweeps=40,shrinkage=0").coders[0]
    every = torch.ones_like(w, dtype=torch.bool)
    plain = run_steps(chosen.fit_steps(w, every, None, torch.eye(COLS))).params
    weighted = run_steps(chosen.fit_weighted_steps(w, every, None, torch.eye(COLS), rows)).params
    errors = [(w - torch.diag(p.row) @ p.left @ p.right @ torch.diag(p.column)).square().sum(1) for p in (plain, weighted)]
    assert (errors[1] * rows).sum() < 0.7 * (errors[0] * rows).sum()
    target = Target.from_weights(w, torch.eye(COLS), diagonal=False, rows=rows)
    assert target.row_unit.shape == (ROWS,)


def test_a_run_in_sequence_is_guided_and_resumes(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model, recipe = open_model(tiny_models["llama"]), presets.parse("gptq:bits=2,group=32,guided=2")
    plain = quantize_model(model, presets.parse("gptq:bits=2,group=32"), text=TEXT)
    steps = list(quantize_model_steps(model, recipe, text=TEXT))
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert str(steps[0].stage).startswith("reading gradients of the loss")
    guided = quantize_model(model, recipe, text=TEXT)
    names = model.layer_names
    assert any(not torch.equal(guided.layers[name].weight(), plain.layers[name].weight()) for name in names)
    assert guided.bits_per_weight == plain.bits_per_weight
    store = Store(tmp_path)
    killed = quantize_model_steps(model, recipe, text=TEXT, store=store)
    list(itertools.islice((step for step in killed if step.event == "done"), 2))
    killed.close()
    seen: list[str] = []
    resumed = quantize_model(model, recipe, text=TEXT, store=store, on_progress=lambda step: seen.append(str(step.stage)))
    assert_same_layers(resumed, guided)
    assert not any("gradients" in stage for stage in seen)
