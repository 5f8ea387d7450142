"""The recipe form: any preset and any composition of registered parts can be shown, changed and read back."""

import pytest

import workbench as wb
from workbench import presets, registry
from workbench.errors import RecipeError
from workbench.widgets.shell.recipe_form import TIPS, RecipeForm

RTN = wb.recipe("rtn", bits=2, group=32)


@pytest.fixture
def told() -> list[wb.Recipe]:
    """The recipes that the form told of, each as it was then."""
    return []


@pytest.fixture
def form(told: list[wb.Recipe]) -> RecipeForm:
    form = RecipeForm(lambda: told.append(form.recipe()))
    form.fill(RTN)
    return form


@pytest.mark.parametrize("name", [name for name in presets.list_presets() if name != "none"])
def test_every_preset_is_shown_whole_and_in_parts(form: RecipeForm, told: list[wb.Recipe], name: str) -> None:
    for recipe in (wb.recipe(name), wb.recipe(name).replace(seed=3)):
        form.fill(recipe)
        assert form.recipe() == recipe
    assert told == [], "filling is no change"


@pytest.mark.parametrize("kind", TIPS)
def test_every_part_can_be_chosen(form: RecipeForm, told: list[wb.Recipe], kind: str) -> None:
    form.fill(RTN.replace())
    for name in registry.list_names(kind):
        part = next(part for part in form.parts if part.kind == kind)
        part.which.value = name
        part.which.param.trigger("value")
        made = told[-1].coders[0] if kind == "coder" else getattr(told[-1], kind)
        assert made == registry.make(kind, name)


def test_a_setting_of_a_part_is_told(form: RecipeForm, told: list[wb.Recipe]) -> None:
    form.fill(RTN.replace())
    coder = next(part for part in form.parts if part.kind == "coder")
    coder.settings["bits"].value = 3
    assert told[-1] == wb.recipe("rtn", bits=3, group=32).replace()
    form.seed.value = 7
    assert told[-1].seed == 7


def test_a_split_has_a_coder_for_each_mask(form: RecipeForm, told: list[wb.Recipe]) -> None:
    form.fill(RTN.replace())
    split = next(part for part in form.parts if part.kind == "split")
    split.which.value = "top-elements"
    assert [part.which.label for part in form.parts if part.kind == "coder"] == ["coder of mask 1", "coder of mask 2"]
    assert len(told[-1].coders) == 2
    split = next(part for part in form.parts if part.kind == "split")
    split.which.value = "whole"
    assert len(told[-1].coders) == 1


def test_a_setting_that_cannot_be_is_an_error(form: RecipeForm) -> None:
    with pytest.raises(RecipeError, match="bits is 99"):
        form.settings["bits"].param.update(end=None, value=99)
