"""A choice: layer, recipe, prompt and what is marked, as one value that can be compared, undone and saved."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from workbench.errors import WorkbenchError
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
        known = [field.name for field in dataclasses.fields(self)]
        for name, marks in changes.items():
            if name not in known:
                raise WorkbenchError(f"unknown mark {name!r}; use {', '.join(known)}.")
            wanted = str if name == "layers" else int
            if wrong := [mark for mark in marks if not isinstance(mark, wanted) or isinstance(mark, bool)]:
                what = "names of layers" if wanted is str else "whole numbers from 0"
                raise WorkbenchError(f"{name} holds {wrong[0]!r}; it takes {what}.")
            if wrong := [mark for mark in marks if wanted is int and mark < 0]:
                raise WorkbenchError(f"{name} holds {wrong[0]}; it takes whole numbers from 0.")
        return dataclasses.replace(self, **{name: tuple(dict.fromkeys(marks)) for name, marks in changes.items()})

    def to_dict(self) -> dict[str, list[Any]]:
        """Plain JSON values, without the kinds of which nothing is marked."""
        return {name: list(marks) for name, marks in vars(self).items() if marks}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls().replace(**data)


@dataclass(frozen=True)
class Choice:
    """What the visitor has chosen: one state of the history."""

    layer: str
    recipe: Recipe
    prompt: str = "Once upon a time"
    selection: Selection = Selection()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        own = {"layer": self.layer, "recipe": self.recipe.to_dict(), "prompt": self.prompt}
        return own | {"selection": self.selection.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; without a selection nothing is marked."""
        if missing := [name for name in ("layer", "recipe", "prompt") if name not in data]:
            raise WorkbenchError(f"the saved session lacks {', '.join(missing)}; save it again with Session.state().")
        selection = Selection.from_dict(data.get("selection", {}))
        return cls(data["layer"], Recipe.from_dict(data["recipe"]), data["prompt"], selection)
