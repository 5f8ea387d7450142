"""Allocation: budgets are kept, the exact optimum is nearly reached at once, and plans are values."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from workbench.errors import RecipeError
from workbench.quantizers.allocation import Options, Ranked, allocate

BITS = {"two": 2.5, "three": 3.5, "four": 4.5}
RECIPES = {name: wb.recipe("rtn", bits=bits, group=64) for bits, name in enumerate(BITS, 2)}
METHODS = ("lagrangian", "milp", "closed-form", Ranked(by="lim"))


def table(layers: int = 42, seed: int = 0, noise: float = 0.3) -> pd.DataFrame:
    """Random options: losses fall by 4 a bit, more or less, and layers differ in size and in what they lose."""
    draw = np.random.default_rng(seed)
    rows = []
    for layer in range(layers):
        parameters, scale = int(draw.choice([32768, 65536, 196608])), draw.lognormal(0, 1.5)
        for name, bits in BITS.items():
            loss = scale * 4.0**-bits * draw.lognormal(0, noise)
            rows.append(
                {"name": f"layer.{layer}", "recipe": name, "parameters": parameters, "bits": bits * parameters, "kl": loss}
            )
    return pd.DataFrame(rows)


def scores(layers: int = 42) -> pd.DataFrame:
    return pd.DataFrame({"name": [f"layer.{i}" for i in range(layers)], "lim": np.arange(layers, 0, -1.0)})


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("bits", [2.5, 2.51, 3.1, 4.2, 4.5, 9.0])
def test_every_method_keeps_the_budget_and_spends_it(method: str, bits: float) -> None:
    options = table()
    found = allocate(options, RECIPES, bits, method, scores=scores())
    spent = found.table["bits"].sum() / found.table["parameters"].sum()
    assert found.bits_per_weight == pytest.approx(spent)
    assert spent <= bits + 1e-6
    largest = 2.0 * 196608 / found.table["parameters"].sum()  # one step of the largest layer
    assert spent > min(bits, 4.5) - (largest if method != "milp" and method != "lagrangian" else 0.3)
    assert found.loss == pytest.approx(found.table["kl"].sum())


@pytest.mark.parametrize("seed", range(5))
def test_lagrangian_is_within_half_a_percent_of_the_optimum(seed: int) -> None:
    options = table(seed=seed)
    for bits in (2.7, 3.0, 3.5, 4.0):
        price, exact = (allocate(options, RECIPES, bits, method).loss for method in ("lagrangian", "milp"))
        assert exact <= price * (1 + 1e-5)
        assert price <= exact * 1.005


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), bits=st.floats(2.5, 4.6))
def test_exact_and_priced_choices_of_few_layers(seed: int, bits: float) -> None:
    """All choices of five layers tried out."""
    options = Options.from_table(table(5, seed))
    every = np.array(np.meshgrid(*[range(3)] * 5)).reshape(5, -1).T
    costs, losses = ([f(choice) for choice in every] for f in (options.cost, options.added_loss))
    budget = bits * options.weights.sum()
    best = min(loss for loss, cost in zip(losses, costs, strict=True) if cost <= budget)
    assert allocate(table(5, seed), RECIPES, bits, "milp").loss == pytest.approx(best, rel=1e-5)
    assert allocate(table(5, seed), RECIPES, bits, "lagrangian").loss <= best * 1.25


def test_more_budget_never_hurts() -> None:
    found = [allocate(table(), RECIPES, bits).loss for bits in np.linspace(2.5, 4.5, 15)]
    assert all(later <= earlier * 1.001 for earlier, later in pairwise(found))


def test_closed_form_is_equal_loss_where_theory_holds() -> None:
    """loss = c 4^-R exactly and options without gaps: every weight loses the same, BAQ's condition, in layers of any size."""
    rows = []
    for layer, (scale, size) in enumerate([(1.0, 1000), (16.0, 4000), (16.0, 1000), (1024.0, 4000)]):
        for step in range(81):
            bits = step / 10
            row = {"name": f"l{layer}", "recipe": f"{bits:g}", "parameters": size, "bits": size * bits}
            rows.append({**row, "kl": scale * 4.0**-bits})
    options = pd.DataFrame(rows)
    recipes = dict.fromkeys(options["recipe"], wb.recipe("rtn"))
    found = allocate(options, recipes, 4.2, "closed-form").table
    per_weight = found["kl"] / found["parameters"]
    assert per_weight.tolist() == pytest.approx([per_weight[0]] * 4)
    assert found["bits_per_weight"].tolist() == pytest.approx([2.0, 3.0, 4.0, 6.0])


def test_ranked_goes_down_the_list() -> None:
    options = table(6)
    options["parameters"], options["bits"] = 100, 100 * options["recipe"].map(BITS)
    found = allocate(options, RECIPES, 3.5, Ranked(by="lim"), scores=scores(6))
    assert found.table["recipe"].tolist() == ["four"] * 3 + ["two"] * 3


def test_layers_painted_by_hand_stay() -> None:
    keep = {"layer.0": "four", "layer.7": "two"}
    found = allocate(table(), RECIPES, 3.0, keep=keep)
    assert {name: found.choice[name] for name in keep} == keep
    assert found.bits_per_weight <= 3.0
    everything = dict.fromkeys(table()["name"], "three")
    assert set(allocate(table(), RECIPES, 3.5, keep=everything).choice.values()) == {"three"}


def test_the_plan_is_a_value() -> None:
    found = allocate(table(), RECIPES, 3.0)
    again = wb.LayerPlan.from_dict(json.loads(json.dumps(found.plan.to_dict())))
    assert again == found.plan
    assert all(again.recipe_for(name) == RECIPES[recipe] for name, recipe in found.choice.items())


def test_mistakes() -> None:
    options = table()
    with pytest.raises(RecipeError, match=r"2 bits per weight are not enough: the cheapest choice stores 2\.500"):
        allocate(options, RECIPES, 2.0)
    with pytest.raises(RecipeError, match="the options lack the columns kl"):
        allocate(options.drop(columns="kl"), RECIPES, 3.0)
    with pytest.raises(RecipeError, match="42 layers and 3 recipes need 126 options, one for each pair; the table has 125 rows"):
        allocate(options.iloc[1:], RECIPES, 3.0)
    with pytest.raises(RecipeError, match="recipe 'four' of the options is not among the given recipes: two, three"):
        allocate(options, {name: RECIPES[name] for name in ("two", "three")}, 3.0)
    with pytest.raises(RecipeError, match="unknown allocation 'greedy'"):
        allocate(options, RECIPES, 3.0, "greedy")
    with pytest.raises(RecipeError, match="needs that score of every layer"):
        allocate(options, RECIPES, 3.0, "ranked")
    with pytest.raises(RecipeError, match=r"layer 'layer\.3' has no score"):
        allocate(options, RECIPES, 3.0, "ranked", scores=scores(3))
    with pytest.raises(RecipeError, match=r"unknown layer 'layer\.77'"):
        allocate(options, RECIPES, 3.0, keep={"layer.77": "two"})
    with pytest.raises(RecipeError, match="unknown recipe 'five'"):
        allocate(options, RECIPES, 3.0, keep={"layer.7": "five"})


def test_plans_are_written_and_compared() -> None:
    plan, other = allocate(table(), RECIPES, 3.0).plan, allocate(table(), RECIPES, 3.0, keep={"layer.3": "four"}).plan
    assert wb.LayerPlan.from_json(plan.to_json()) == plan
    layers = [f"layer.{index}" for index in range(42)]
    assert plan.diff(plan, layers) == {}
    assert plan.diff(other, layers)["layer.3"] == (plan.recipe_for("layer.3"), RECIPES["four"])
    assert plan.diff(wb.LayerPlan(()), ["layer.0"]) == {"layer.0": (plan.recipe_for("layer.0"), None)}
