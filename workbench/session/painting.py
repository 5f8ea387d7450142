"""Recipes painted on single layers: a plan made by hand, and the run that carries it out."""

from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

from workbench.analysis.decisions.pins import label_recipes
from workbench.errors import WorkbenchError
from workbench.models.text import text
from workbench.quantized import QuantizedModel
from workbench.quantizers import LayerProgress, quantize_model_steps
from workbench.quantizers.pipeline import needs_text
from workbench.recipe import LayerPlan, Recipe
from workbench.session.history import Kind
from workbench.session.shared import CALIBRATION_TOKENS, Heard

if TYPE_CHECKING:
    from workbench.session.session import Session


class Painting:
    """What was painted: a recipe for each of some layers, by name, in the model's order."""

    def __init__(self, session: "Session") -> None:
        self.session, self.recipes = session, dict[str, Recipe]()

    def paint(self, layers: Iterable[str], recipe: Recipe | None) -> None:
        """Give layers a recipe, or take theirs away (None); ModelError for a layer that does not exist."""
        names = [self.session.model.layer(name).name for name in layers]
        painted = {name: other for name, other in self.recipes.items() if name not in names}
        if recipe is not None:
            painted |= dict.fromkeys(names, recipe)
        order = [*self.session.model.layer_names, *self.session.model.optional_names]
        self.recipes = {name: painted[name] for name in order if name in painted}

    @property
    def plan(self) -> LayerPlan:
        """One rule a painted layer; all other layers stay as they are."""
        return LayerPlan(tuple(self.recipes.items()))

    def quantize_steps(self) -> Generator[LayerProgress | Heard, None, QuantizedModel]:
        """Quantize the painted layers, and show that as a run; WorkbenchError where nothing is painted."""
        session, plan = self.session, self.plan
        if not plan.rules:
            raise WorkbenchError("no layer is painted: mark layers on the map, then press Paint.")
        start, bench = session.history.at, session.recipe
        if any(needs_text(recipe) for recipe in self.recipes.values()):
            steps = quantize_model_steps(session.model, plan, text=text("calibration"), tokens=CALIBRATION_TOKENS)
        else:
            steps = quantize_model_steps(session.model, plan, (yield from session.shared.stats_steps()))
        quantized = yield from steps
        session.take(quantized)
        session.runs.add(label_recipes(quantized.layers.values(), len(session.model.layer_names)), quantized)
        session.compared.bench = bench
        count = f"{len(quantized.layers)} painted layer{'' if len(quantized.layers) == 1 else 's'}"
        outcome = f"quantized {count}: {quantized.bits_per_weight:.2f} stored bits"
        session.history.record(Kind.QUANTIZE_MODEL, start, outcome)
        return quantized
