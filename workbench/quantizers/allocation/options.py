"""The options of an allocation, layer by layer, and the interface of an allocator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import RecipeError
from workbench.recipe import Part

if TYPE_CHECKING:
    import pandas as pd

NEEDED = ("name", "recipe", "parameters", "bits", "kl")


@dataclass(frozen=True)
class Options:
    """`bits` (stored, in all) and `loss` `[layers, recipes]`, `weights` and every score `[layers]`; a high score wants bits."""

    names: tuple[str, ...]
    recipes: tuple[str, ...]
    weights: np.ndarray
    bits: np.ndarray
    loss: np.ndarray
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_table(cls, table: "pd.DataFrame", scores: "pd.DataFrame | None" = None) -> "Options":
        """From one row a layer and recipe (name, recipe, parameters, bits, kl), and one row a layer of scores (name, …).

        RecipeError where a column, a combination or a layer's score is missing.
        """
        if missing := [column for column in NEEDED if column not in table]:
            raise RecipeError(f"the options lack the columns {', '.join(missing)}; `sensitivity` makes a table with all of them.")
        names, recipes = list(dict.fromkeys(table["name"])), list(dict.fromkeys(table["recipe"]))
        if len(table) != len(names) * len(recipes) or table.duplicated(["name", "recipe"]).any():
            raise RecipeError(
                f"{len(names)} layers and {len(recipes)} recipes need {len(names) * len(recipes)} options, one for each pair; "
                f"the table has {len(table)} rows."
            )
        bits, loss = (
            table.pivot(index="name", columns="recipe", values=v).loc[names, recipes].to_numpy(float) for v in NEEDED[3:]
        )
        weights = table.drop_duplicates("name").set_index("name").loc[names, "parameters"].to_numpy(float)
        arrays: dict[str, np.ndarray] = {}
        if scores is not None:
            by_layer = scores.set_index("name")
            if absent := [name for name in names if name not in by_layer.index]:
                raise RecipeError(f"layer {absent[0]!r} has no score; score all {len(names)} layers of the options.")
            arrays = {column: by_layer.loc[names, column].to_numpy(float) for column in by_layer.select_dtypes("number")}
        return cls(tuple(names), tuple(recipes), weights, bits, loss, arrays)

    def rows(self, keep: np.ndarray) -> "Options":
        """The options of some layers, by a mask `[layers]`."""
        names = tuple(name for name, is_kept in zip(self.names, keep, strict=True) if is_kept)
        scores = {name: score[keep] for name, score in self.scores.items()}
        return Options(names, self.recipes, self.weights[keep], self.bits[keep], self.loss[keep], scores)

    def cost(self, chosen: np.ndarray) -> float:
        """Stored bits of a choice `[layers]` of recipes."""
        return float(self.bits[np.arange(len(chosen)), chosen].sum())

    def added_loss(self, chosen: np.ndarray) -> float:
        """Loss of a choice, added up over layers."""
        return float(self.loss[np.arange(len(chosen)), chosen].sum())

    def cheapest(self) -> np.ndarray:
        """The option with the fewest bits of every layer; of equals the one that loses less."""
        return np.array([np.lexsort((loss, bits))[0] for bits, loss in zip(self.bits, self.loss, strict=True)], dtype=int)


@dataclass(frozen=True)
class Allocator(Part):
    """One way to choose; subclasses register under "allocation"."""

    def choose(self, options: Options, budget: float) -> np.ndarray:
        """The number of a recipe for each layer `[layers]`, at most `budget` bits in all; some choice is known to fit."""
        raise NotImplementedError
