"""A form holds one widget for each setting of any preset, with its value, range, choices and help."""

import dataclasses

import panel as pn
import pytest

from workbench import presets
from workbench.presets.preset import list_settings
from workbench.widgets.base import setting_fields

SETTINGS = [
    pytest.param(name, field, id=f"{name}-{field.name}")
    for name in presets.list_presets()
    for field in dataclasses.fields(presets.find(name))
]
EXPECTED = {bool: pn.widgets.Select, int: pn.widgets.IntInput, float: pn.widgets.FloatInput, str: pn.widgets.TextInput}


@pytest.mark.parametrize("name", presets.list_presets())
def test_a_preset_has_a_widget_for_each_setting(name: str) -> None:
    assert list(setting_fields.build_preset_widgets(name)) == [field.name for field in list_settings(presets.find(name))]


@pytest.mark.parametrize(("name", "field"), SETTINGS)
def test_a_widget_knows_its_setting(name: str, field: dataclasses.Field) -> None:
    widget = setting_fields.build_preset_widgets(name)[field.name]
    assert widget.value == field.default
    assert type(widget.value) is type(field.default)
    assert widget.label == field.name.replace("_", " ")
    assert widget.description == field.metadata["help"]
    choices = field.metadata["choices"]
    assert isinstance(widget, pn.widgets.Select if choices is not None else EXPECTED[type(field.default)])
    if choices is not None:
        assert list(widget.values) == list(choices)
    elif type(field.default) in (int, float):
        assert (widget.start, widget.end) == (field.metadata["low"], field.metadata["high"])


def test_a_form_is_filled_from_its_recipe() -> None:
    values = {
        name: field.value
        for name, field in setting_fields.build_preset_widgets("gptq", presets.recipe("gptq", bits=2, act_order=True)).items()
    }
    assert (values["bits"], values["act_order"], values["static_groups"]) == (2, True, False)


def test_a_recipe_of_another_preset_leaves_the_defaults() -> None:
    assert setting_fields.build_preset_widgets("rtn", presets.recipe("gptq", bits=2))["bits"].value == 4


@pytest.mark.parametrize("name", presets.list_presets())
def test_the_parts_of_a_recipe_are_listed(name: str) -> None:
    recipe = presets.recipe(name)
    table = setting_fields.list_recipe_parts(recipe)
    kinds = [kind.split()[0] for kind, _ in table]
    assert kinds == [
        "transform",
        "split",
        *["coder"] * len(recipe.coders),
        "assignment",
        "correction",
        "activations",
        "refinement",
    ]
    for (_, text), part in zip(table[2:], recipe.coders, strict=False):
        assert text.startswith(part.name)
