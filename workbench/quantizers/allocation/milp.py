"""Allocator `milp`: the exact optimum, by integer programming."""

from dataclasses import dataclass

import numpy as np

from workbench.errors import RecipeError
from workbench.quantizers.allocation.options import Allocator, Options
from workbench.recipe import setting
from workbench.registry import register


@register("allocation", "milp")
@dataclass(frozen=True)
class Milp(Allocator):
    """min Σ loss x, Σ bits x ≤ budget, one option a layer, x 0 or 1: AdaQuant's integer programme (arXiv 2006.10518), as HiGHS
    solves it."""

    seconds: int = setting(30, "time limit in seconds", low=1, high=3600)

    def choose(self, options: Options, budget: float) -> np.ndarray:
        """The optimum; RecipeError when it is not proven in time."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import block_array, csr_array, eye_array, kron

        layers, recipes = options.bits.shape
        one = kron(eye_array(layers), np.ones((1, recipes)))
        rows = block_array([[one], [csr_array(options.bits.reshape(1, -1) / budget)]])
        low, high = np.append(np.ones(layers), 0.0), np.append(np.ones(layers), 1.0)
        scale = options.loss.max() or 1.0
        solution = milp(
            options.loss.reshape(-1) / scale,
            integrality=np.ones(layers * recipes),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(rows, low, high),
            options={"time_limit": self.seconds, "mip_rel_gap": 1e-6},
        )
        if not solution.success:
            raise RecipeError(
                f"no proven optimum for {layers} layers × {recipes} recipes in {self.seconds} s; increase seconds, "
                "or use the allocation 'lagrangian'."
            )
        return solution.x.reshape(layers, recipes).argmax(1)
