"""Plans for fused models: a recipe's rotation is dropped, except for layers that fusing did not reach."""

from typing import TYPE_CHECKING

from workbench import registry
from workbench.models.fused import FusedModel
from workbench.recipe import LayerPlan, Recipe

if TYPE_CHECKING:
    from workbench.models import ModelHandle


def plan_for_fused(model: "ModelHandle", recipe: Recipe) -> LayerPlan:
    """The recipe for every layer. On a fused model one without a transform gets an online Hadamard where none could be fused."""
    if not isinstance(model, FusedModel) or recipe.transform.name != "identity":
        return LayerPlan.uniform(recipe)
    turned = recipe.replace(transform=registry.make("transform", "hadamard"))
    return LayerPlan((*((f"*.{matrix}", turned) for matrix in model.facts["online"]), ("*", recipe)))
