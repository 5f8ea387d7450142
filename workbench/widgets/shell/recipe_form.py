"""A recipe as a form: a preset's settings, or all parts with theirs. No preset or part is named here.

The bits stand on top; other settings are folded away, and rarely changed ones folded once more.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

import panel as pn

from workbench import presets, registry
from workbench.errors import RecipeError
from workbench.quantizers.contract import Coder, Split
from workbench.recipe import CUSTOM, Part, Recipe
from workbench.seeds import LARGEST_SEED
from workbench.widgets.base import setting_fields
from workbench.widgets.base.controls import build_folded_card

MAIN = "bits"  # the setting that stands above the others
SHRINKAGE, GUIDED = (field for field in dataclasses.fields(Recipe) if field.name in ("shrinkage", "guided"))
TIPS = {
    "transform": "Change of basis before the matrix is coded; it is undone at run time",
    "split": "Assigns weights to coders",
    "coder": "Maps weights to codes",
    "assignment": "How codes are chosen: nearest code, or with error feedback into later columns",
    "correction": "Low-rank correction of the error",
    "activations": "Quantization of the layer's input at run time",
    "refinement": "Training on a block's output, if blocks are quantized in sequence",
}


class PartForm(pn.viewable.Viewer):
    """One part of a recipe: which one, and its settings below."""

    def __init__(self, label: str, part: Part, changed: Callable[[], None]) -> None:
        super().__init__()
        self.kind, self.changed = part.kind, changed
        options = registry.list_names(part.kind)
        tip = TIPS[part.kind]
        self.which = pn.widgets.Select(
            label=label, options=options, value=part.name, description=tip, sizing_mode="stretch_width"
        )
        self.settings: dict[str, pn.widgets.Widget] = {}
        self.fields = pn.FlexBox(sizing_mode="stretch_width", margin=(0, 0, 0, 14))
        self._fill(part)
        self.which.param.watch(lambda _: self._chosen(), "value")
        self.view = pn.Column(self.which, self.fields, sizing_mode="stretch_width", styles={"flex": "1 1 220px"})

    def part(self) -> Part:
        """What the widgets say; RecipeError for a setting that cannot be."""
        settings = {name: field.value for name, field in self.settings.items()}
        return cast(Part, registry.make(self.kind, self.which.value, **settings))

    def _chosen(self) -> None:
        self._fill(registry.make(self.kind, self.which.value))
        self.changed()

    def _fill(self, part: Part) -> None:
        self.settings = {f.name: setting_fields.build_setting_widget(f, getattr(part, f.name)) for f in dataclasses.fields(part)}
        for field in self.settings.values():
            field.param.watch(lambda _: self.changed(), "value")
        self.fields[:] = list(self.settings.values())

    def __panel__(self) -> pn.viewable.Viewable:
        return self.view


class RecipeForm(pn.viewable.Viewer):
    """The whole recipe; `changed` is called when a visitor has changed something, and `recipe()` says what it is now."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__()
        self.changed = changed
        self.filling, self.filled = False, ""
        self.settings: dict[str, pn.widgets.Widget] = {}
        self.parts: list[PartForm] = []
        self.main, self.usual, self.rare = (pn.FlexBox(sizing_mode="stretch_width") for _ in range(3))
        self.rare_card = build_folded_card("Rarely changed", self.rare)
        inside = pn.Column(self.usual, self.rare_card, sizing_mode="stretch_width")
        self.card = build_folded_card("Settings", inside)
        self.view = pn.Column(self.main, self.card, sizing_mode="stretch_width")

    def recipe(self) -> Recipe:
        """What the form says; RecipeError where that is no recipe."""
        if self.filled != CUSTOM:
            return presets.recipe(self.filled, **{name: field.value for name, field in self.settings.items()})
        return self._compose_recipe([part.part() for part in self.parts])

    def fill(self, recipe: Recipe) -> None:
        """Show a recipe, which is not taken for a change; widgets that say it already stay as they are."""
        if self.filled == recipe.name and self._says(recipe):
            return
        self.filling, self.filled = True, recipe.name
        if recipe.name == CUSTOM:
            self._fill_parts(recipe)
        else:
            self.settings, self.parts = setting_fields.build_preset_widgets(recipe.name, recipe), []
            for field in self.settings.values():
                field.param.watch(lambda _: self._announce(), "value")
            rare = setting_fields.list_rare_settings(recipe.name)
            self._arrange(self.settings, rare)
        self.filling = False

    def _arrange(self, fields: Mapping[str, Any], rare: Collection[str]) -> None:
        """Put each field where it is found by how often it is needed."""
        self.main[:] = [field for name, field in fields.items() if name == MAIN]
        self.usual[:] = [field for name, field in fields.items() if name != MAIN and name not in rare]
        self.rare[:] = [field for name, field in fields.items() if name in rare]
        self.rare_card.visible = bool(rare)

    def _says(self, recipe: Recipe) -> bool:
        try:
            return self.recipe() == recipe
        except RecipeError:
            return False

    def _fill_parts(self, recipe: Recipe) -> None:
        coders = [("coder" if len(recipe.coders) == 1 else f"coder of mask {i}", c) for i, c in enumerate(recipe.coders, 1)]
        parts = [("transform", recipe.transform), ("split", recipe.split), *coders, ("assignment", recipe.assignment)]
        parts += [(kind, getattr(recipe, kind)) for kind in ("correction", "activations", "refinement")]
        self.settings, self.parts = {}, [PartForm(label, part, self._announce) for label, part in parts]
        tip = "Random seed"
        limits = {"start": 0, "end": LARGEST_SEED}
        self.seed = pn.widgets.IntInput(label="seed", value=recipe.seed, **limits, description=tip, sizing_mode="stretch_width")
        self.seed.param.watch(lambda _: self._announce(), "value")
        self.shrinkage = setting_fields.build_setting_widget(SHRINKAGE, recipe.shrinkage)
        self.shrinkage.param.watch(lambda _: self._announce(), "value")
        self.guided = setting_fields.build_setting_widget(GUIDED, recipe.guided)
        self.guided.param.watch(lambda _: self._announce(), "value")
        rare = {"shrinkage": self.shrinkage, "guided": self.guided, "seed": self.seed}
        self._arrange({**{str(position): part for position, part in enumerate(self.parts)}, **rare}, rare)

    def _announce(self) -> None:
        if self.filling:
            return
        if self.filled == CUSTOM:
            self._fit_coders()
        self.changed()

    def _fit_coders(self) -> None:
        """A coder for each mask of the split: the last one is repeated, or the ones too many go."""
        try:
            chosen_parts = [part.part() for part in self.parts]
        except RecipeError:
            return  # `recipe` will say so
        count_needed = next(cast(Split, part).parts for part in chosen_parts if part.kind == "split")
        coders = [part for part in chosen_parts if part.kind == "coder"]
        if len(coders) != count_needed:
            others = [part for part in chosen_parts if part.kind != "coder"]
            self.filling = True
            parts = [*others, *(coders + [coders[-1]] * count_needed)[:count_needed]]
            self._fill_parts(self._compose_recipe(parts))
            self.filling = False

    def _compose_recipe(self, parts: list[Part]) -> Recipe:
        """The recipe of these parts, the coders in their order, with the form's other settings."""
        by_kind: dict[str, Any] = {part.kind: part for part in parts if part.kind != "coder"}
        coders = tuple(part for part in parts if isinstance(part, Coder))
        others: dict[str, Any] = {
            "seed": self.seed.value or 0,
            "shrinkage": self.shrinkage.value or 0.0,
            "guided": self.guided.value or 0,
        }
        return Recipe(coders=coders, **others, **by_kind)

    def __panel__(self) -> pn.viewable.Viewable:
        return self.view
