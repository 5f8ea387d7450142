"""A choice: layer, recipe, prompt and marks, as one value that can be compared, undone and saved."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from workbench.errors import WorkbenchError
from workbench.json_value import JsonValue
from workbench.recipe import Recipe


@dataclass(frozen=True)
class Selection:
    """What is marked in the figures; every view that shows such a thing shows the mark.

    `layers` are names; `channels` (columns of the weight, input features), `rows` (output features) and `codes` (codewords) count
    from 0 in the selected layer; `tokens` are positions in the text on show.
    """

    layers: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    codes: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()

    def replace(self, **changes: Any) -> Self:
        """A copy with some marks exchanged; WorkbenchError for a kind of mark that does not exist, or for a value of it."""
        field_names = [field.name for field in dataclasses.fields(self)]
        for name, marks in changes.items():
            if name not in field_names:
                raise WorkbenchError(f"unknown mark {name!r}; use {', '.join(field_names)}.")
            expected = str if name == "layers" else int
            if wrong := [mark for mark in marks if not isinstance(mark, expected) or isinstance(mark, bool)]:
                what = "names of layers" if expected is str else "whole numbers from 0"
                raise WorkbenchError(f"{name} holds {wrong[0]!r}; it takes {what}.")
            if wrong := [mark for mark in marks if expected is int and mark < 0]:
                raise WorkbenchError(f"{name} holds {wrong[0]}; it takes whole numbers from 0.")
        return dataclasses.replace(self, **{name: tuple(dict.fromkeys(marks)) for name, marks in changes.items()})

    def to_dict(self) -> dict[str, list[Any]]:
        """Plain JSON values, without the kinds of which nothing is marked."""
        return {name: list(marks) for name, marks in vars(self).items() if marks}

    @classmethod
    def read(cls, value: JsonValue) -> Self:
        """The inverse of `to_dict`."""
        marks = {
            name: tuple(element.as_text() for element in marks_value.elements())
            for name, marks_value in value.items()
            if name == "layers"
        }
        numbers = {
            name: tuple(element.as_whole() for element in marks_value.elements())
            for name, marks_value in value.items()
            if name != "layers"
        }
        return cls().replace(**marks, **numbers)


@dataclass(frozen=True)
class Choice:
    """What the visitor has chosen: one state of the history."""

    layer: str
    recipe: Recipe
    prompt: str = "Once upon a time"
    selection: Selection = Selection()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        content = {"layer": self.layer, "recipe": self.recipe.to_dict(), "prompt": self.prompt}
        return content | {"selection": self.selection.to_dict()}

    @classmethod
    def read(cls, value: JsonValue) -> Self:
        """The inverse of `to_dict`; without a selection nothing is marked."""
        value.check_names("version", "layer", "recipe", "prompt", "selection")
        advice = "save the session again"
        layer, prompt = value.get("layer", advice).as_text(), value.get("prompt", advice).as_text()
        recipe, selection = Recipe.from_dict(value.get("recipe", advice)), value.find("selection")
        return cls(layer, recipe, prompt, Selection() if selection is None else Selection.read(selection))
