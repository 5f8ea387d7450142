"""A form generated from a preset's settings: a widget for each, with its help and range. No preset is named here."""

import dataclasses
from typing import Any

import panel as pn

from workbench import presets
from workbench.presets.preset import list_settings
from workbench.recipe import Recipe


def build_setting_widget(field: dataclasses.Field, value: Any) -> pn.widgets.Widget:
    """A labelled input for one setting, its help as the tooltip."""
    limits = field.metadata
    common = {"label": field.name.replace("_", " "), "description": limits.get("help"), "sizing_mode": "stretch_width"}
    common["styles"] = {"flex": "1 1 100px"}  # beside each other where there is room
    if isinstance(field.default, bool):
        return pn.widgets.Select(value=value, options={"yes": True, "no": False}, **common)
    if limits.get("choices") is not None:
        return pn.widgets.Select(value=value, options=list(limits["choices"]), **common)
    if isinstance(field.default, int):
        return pn.widgets.IntInput(value=value, start=limits.get("low"), end=limits.get("high"), **common)
    if isinstance(field.default, float):
        return pn.widgets.FloatInput(value=value, step=0.1, start=limits.get("low"), end=limits.get("high"), **common)
    return pn.widgets.TextInput(value=value, **common)


def build_preset_widgets(preset: str, recipe: Recipe | None = None) -> dict[str, pn.widgets.Widget]:
    """One widget for each setting of a preset, filled from `recipe` where it is of that preset, else with the defaults."""
    current = dict(recipe.settings) if recipe is not None and recipe.name == preset else {}
    return {f.name: build_setting_widget(f, current.get(f.name, f.default)) for f in list_settings(presets.find(preset))}


def list_rare_settings(preset: str) -> list[str]:
    """The settings of a preset that few people change."""
    return [field.name for field in list_settings(presets.find(preset)) if field.metadata["rare"]]


def list_recipe_parts(recipe: Recipe) -> list[tuple[str, str]]:
    """What a recipe is composed of, part by part, as people read it."""
    parts = [("transform", recipe.transform), ("split", recipe.split)]
    parts += [("coder" if len(recipe.coders) == 1 else f"coder {i}", coder) for i, coder in enumerate(recipe.coders, 1)]
    parts += [("assignment", recipe.assignment), ("correction", recipe.correction), ("activations", recipe.activations)]
    parts += [("refinement", recipe.refinement)]
    rows = []
    for kind, part in parts:
        settings = ", ".join(f"{f.name.replace('_', ' ')} {getattr(part, f.name)}" for f in dataclasses.fields(part))
        rows.append((kind, f"{part.name} ({settings})" if settings else part.name))
    return rows
