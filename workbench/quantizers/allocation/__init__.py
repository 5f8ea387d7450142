"""Bit allocation: methods that choose a recipe for each layer under a budget of stored bits; the import registers all."""

from workbench.quantizers.allocation.closed_form import ClosedForm
from workbench.quantizers.allocation.lagrangian import Lagrangian
from workbench.quantizers.allocation.milp import Milp
from workbench.quantizers.allocation.options import Allocator, Options
from workbench.quantizers.allocation.plan import Allocation, allocate
from workbench.quantizers.allocation.ranked import Ranked

__all__ = ["Allocation", "Allocator", "ClosedForm", "Lagrangian", "Milp", "Options", "Ranked", "allocate"]
