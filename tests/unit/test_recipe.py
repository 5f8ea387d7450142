"""Recipes and plans are values: round trips through JSON and Python, and one sentence for every mistake."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import workbench as wb
from workbench import registry
from workbench.errors import RecipeError
from workbench.presets import list_presets
from workbench.recipe import LayerPlan, Part, Recipe, setting


@dataclass(frozen=True)
class Toaster(Part):
    """A part of this test's own."""

    slots: int = setting(2, "how many slices", low=1, high=4)
    heat: float = setting(0.5, "how hot", low=0.0)
    color: str = setting("red", "of the box", choices=("red", "blue"))
    timer: bool = setting(default=True, help="whether it stops by itself")


@pytest.fixture(autouse=True)
def shop() -> Iterator[None]:
    registry.register("toaster", "simple")(Toaster)
    yield
    registry._parts.pop("toaster")


def custom(**changes: Any) -> Recipe:
    parts = {
        "transform": wb.part("transform", "identity"),
        "split": wb.part("split", "whole"),
        "coders": (wb.part("coder", "uniform", bits=3, group=32),),
        "assignment": wb.part("assignment", "nearest"),
        "correction": wb.part("correction", "low-rank", rank=4),
    }
    return Recipe(**{**parts, "seed": 7, **changes})


RECIPES = [*list_presets(), "custom"]


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    """Each preset as it comes, and a free combination."""
    return custom() if request.param == "custom" else wb.recipe(request.param)


def test_json_brings_a_recipe_back(recipe: Recipe) -> None:
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert json.loads(recipe.to_json())["version"] == 1


def test_printed_python_makes_the_same_recipe(recipe: Recipe) -> None:
    assert eval(recipe.code(), {"wb": wb}) == recipe


def test_a_preset_is_printed_as_one_call() -> None:
    assert wb.recipe("rtn", bits=3).code().startswith("wb.recipe('rtn', bits=3")


def test_a_recipe_with_an_exchanged_part_is_no_longer_the_preset() -> None:
    changed = wb.recipe("rtn").replace(correction=wb.part("correction", "low-rank", rank=4))
    assert changed.name == "custom"
    assert changed.code().startswith("wb.Recipe(")
    assert eval(changed.code(), {"wb": wb}) == changed


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"slots": 5}, r"toaster 'simple': slots is 5; it must be from 1 to 4\."),
        ({"slots": 2.5}, r"toaster 'simple': slots is 2\.5; a value of type int is needed\."),
        ({"slots": True}, r"slots is True; a value of type int is needed\."),
        ({"heat": -1.0}, r"heat is -1\.0; it must be at least 0"),
        ({"heat": float("nan")}, r"heat is nan; it must be at least 0"),
        ({"color": "green"}, r"color is 'green'; use one of red, blue\."),
        ({"timer": 1}, r"timer is 1; a value of type bool is needed\."),
    ],
    ids=["above", "fraction", "bool-for-int", "below", "nan", "choice", "int-for-bool"],
)
def test_a_setting_out_of_range_is_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        Toaster(**settings)


def test_a_whole_number_is_a_number() -> None:
    assert Toaster(heat=2).heat == 2


def test_parts_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        Toaster().slots = 3  # type: ignore[misc]


def test_a_part_prints_itself() -> None:
    part = Toaster(slots=3)
    assert eval(part.code(), {"wb": wb}) == part
    assert part.to_dict() == {"part": "simple", "slots": 3, "heat": 0.5, "color": "red", "timer": True}


def edited(change: dict[str, Any]) -> dict[str, Any]:
    return {**custom().to_dict(), **change}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({**edited({}), "version": 9}, r"recipe version 9 is not known here; this workbench reads version 1"),
        ({k: v for k, v in edited({}).items() if k != "split"}, r"the recipe has no 'split'; it needs transform, split"),
        (edited({"split": {"part": "hole"}}), r"unknown split 'hole'\. Did you mean 'whole'\?"),
        (edited({"transform": {"part": "identity", "angle": 3}}), r"transform 'identity': unknown field 'angle'"),
        (edited({"split": {}}), r"the recipe: split has no 'part'; it needs the part's name"),
        (edited({"split": {"part": "whole", "name": 1}}), r"the recipe: split: split 'whole': unknown field 'name'"),
        (edited({"split": ["whole"]}), r"the recipe: split is \['whole'\]; it must be an object"),
        (edited({"coders": {}}), r"the recipe: coders is \{\}; it must be a list"),
        (edited({"seed": "0); print("}), r"the recipe: seed is '0\); print\('; it must be a whole number from 0"),
        (edited({"name": 3}), r"the recipe: name is 3; it must be text"),
        (
            edited({"activatons": {"part": "keep"}}),
            r"has the unknown field 'activatons'; its fields are version, name",
        ),
    ],
    ids=[
        *("version", "missing", "unknown-part", "unknown-field", "no-part-name", "part-called-name", "part-list", "coders"),
        *("seed-that-is-code", "name", "misspelled"),
    ],
)
def test_a_damaged_document_is_one_sentence(data: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        Recipe.from_dict(data)


def test_text_that_is_not_json_is_one_sentence() -> None:
    with pytest.raises(RecipeError, match="the recipe is not JSON: "):
        Recipe.from_json("{bits: 2}")


def test_a_plan_takes_the_first_rule_that_matches() -> None:
    plan = LayerPlan((("*.down_proj", wb.recipe("rtn", bits=4)), ("model.layers.0.*", wb.recipe("rtn", bits=2))))
    assert plan.recipe_for("model.layers.0.mlp.down_proj") == wb.recipe("rtn", bits=4)
    assert plan.recipe_for("model.layers.0.mlp.up_proj") == wb.recipe("rtn", bits=2)
    assert plan.recipe_for("model.layers.1.mlp.up_proj") is None


def test_json_brings_a_plan_back() -> None:
    plan = LayerPlan((("*.down_proj", wb.recipe("btc")), ("*", custom())))
    assert LayerPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_a_plan_of_another_version_is_refused() -> None:
    with pytest.raises(RecipeError, match="plan version 4 is not known here"):
        LayerPlan.from_dict({"version": 4, "rules": []})


def test_a_plan_names_the_place_of_a_fault() -> None:
    data = LayerPlan((("*", custom()),)).to_dict()
    data["rules"][0]["recipe"]["coders"][0]["bits"] = "three"
    with pytest.raises(RecipeError, match=r"the plan: rules\[0\]\.recipe\.coders\[0\]: coder 'uniform': bits is 'three'"):
        LayerPlan.from_dict(data)
    with pytest.raises(RecipeError, match=r"the plan: rules\[0\] has no 'layers'; a rule needs layers and recipe"):
        LayerPlan.from_dict({"version": 1, "rules": [{}]})


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"bits": 2}},
        {"settings": {"bits=4) or print(": 1}},
        {"settings": {"bits": "4"}},
        {"name": "gptq"},
        {"name": "no-such-preset"},
        {"name": "rtn'); print('"},
        {"seed": 5},
    ],
    ids=["other-settings", "code-as-a-setting", "type", "other-preset", "no-preset", "code-as-a-name", "seed"],
)
def test_a_recipe_that_its_preset_does_not_give_is_a_custom_one(changes: dict[str, Any]) -> None:
    made = wb.recipe("rtn", bits=3)
    read = Recipe.from_dict({**made.to_dict(), **changes})
    assert (read.name, read.settings) == ("custom", ())
    assert read.replace(seed=0) == made.replace()
    assert eval(read.code(), {"__builtins__": {}, "wb": wb}) == read
    assert "print" not in read.code()


def test_a_recipe_that_its_preset_gives_keeps_its_name() -> None:
    read = Recipe.from_dict({**wb.recipe("rtn", bits=3).to_dict(), "settings": {"group": 128, "bits": 3}})
    assert read == wb.recipe("rtn", bits=3), "settings that are the default are not part of it"
