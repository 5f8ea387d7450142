"""The differences between two choices in words."""

import dataclasses

from workbench.presets.recipe_syntax import spell
from workbench.recipe import Part, Recipe
from workbench.session.choice import Choice

MANY = 6  # marks that are listed one by one
KINDS = ("transform", "split", "assignment", "correction", "activations", "refinement")


def describe_differences(before: Choice, after: Choice) -> list[str]:
    """One phrase for each thing that differs, empty where nothing does."""
    sentences = []
    if before.layer != after.layer:
        sentences.append(f"layer {after.layer} (was {before.layer})")
    if before.recipe != after.recipe:
        sentences += _describe_recipe_differences(before.recipe, after.recipe)
    if before.prompt != after.prompt:
        sentences.append(f"prompt “{after.prompt}” (was “{before.prompt}”)")
    for name, marks in vars(after.selection).items():
        if marks != getattr(before.selection, name):
            sentences.append(f"{name} {_format_marks(marks)} marked (were {_format_marks(getattr(before.selection, name))})")
    return sentences


def _describe_recipe_differences(before: Recipe, after: Recipe) -> list[str]:
    """Two settings of one preset, two presets, or the parts that differ where one of them is composed freely."""
    if before.name == after.name != "custom":
        old, new = dict(before.settings), dict(after.settings)
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return [
            f"{after.name} {name.replace('_', ' ')} {_format_setting(new, name)} (was {_format_setting(old, name)})"
            for name in names
        ]
    if "custom" not in (before.name, after.name):
        return [f"recipe {spell(after)} (was {spell(before)})"]
    sentences = [
        f"{kind} {_format_part(getattr(after, kind))} (was {_format_part(getattr(before, kind))})"
        for kind in KINDS
        if getattr(before, kind) != getattr(after, kind)
    ]
    if before.coders != after.coders:
        was, now = (" · ".join(map(_format_part, recipe.coders)) for recipe in (before, after))
        sentences.append(f"coder {now} (was {was})")
    if before.seed != after.seed:
        sentences.append(f"seed {after.seed} (was {before.seed})")
    return sentences or [f"recipe {spell(after)} (was {spell(before)})"]


def _format_part(part: Part) -> str:
    """A part with the settings that are not the default."""
    changed = [f for f in dataclasses.fields(part) if getattr(part, f.name) != f.default]
    settings = ", ".join(f"{f.name.replace('_', ' ')} {getattr(part, f.name)}" for f in changed)
    return f"{part.name} ({settings})" if settings else part.name


def _format_setting(settings: dict[str, object], name: str) -> str:
    """A setting's value, or that it is the preset's own."""
    return str(settings[name]) if name in settings else "default"


def _format_marks(marks: tuple[str, ...] | tuple[int, ...]) -> str:
    """The first few marks, and how many more."""
    if not marks:
        return "none"
    more = f" and {len(marks) - MANY} more" if len(marks) > MANY else ""
    return ", ".join(map(str, marks[:MANY])) + more
