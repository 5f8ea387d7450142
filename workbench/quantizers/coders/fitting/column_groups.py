"""Groups of neighbouring columns that share scales: their width for a matrix, and the parameters of all groups."""

import torch
from torch import Tensor

from workbench.errors import ShapeError

EVEN = 8  # groups of a multiple of this may leave a shorter last one: their codes begin on a byte


def compute_group_span(group: int, cols: int, step: int = 1) -> int:
    """Columns a group for a matrix of `cols`: `group`, or all of them for 0; ShapeError where groups would not fit.

    A group of a vector coder holds whole steps; one of single columns divides them or is a multiple of 8. The last group may
    be shorter.
    """
    if group == 0 or group >= cols:
        return cols
    fits = group % step == 0 if step > 1 else cols % group == 0 or group % EVEN == 0
    if not fits:
        base = step if step > 1 else EVEN
        sizes = ", ".join(str(base << power) for power in range(6) if base << power < cols)
        why = f"does not hold whole vectors of {step} columns" if step > 1 else f"does not divide {cols} columns"
        raise ShapeError(f"group size {group} {why}; use {sizes} or 0 for the whole row.")
    return group


def stack_groups(groups: list[Tensor]) -> Tensor:
    """One parameter of all groups, `[..., rows]` each, as `[..., rows, groups]`."""
    return torch.stack(groups, -1)
