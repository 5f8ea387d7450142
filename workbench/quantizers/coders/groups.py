"""Groups of neighbouring columns that share scales: their width for a matrix, and parameters of all groups side by side."""

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.errors import ShapeError
from workbench.quantizers.contract import Params
from workbench.recipe import setting

EVEN = 8  # groups of a multiple of this may leave a shorter last one; packed codes stay aligned


def group_setting(default: int) -> int:
    """The setting `group`."""
    return setting(default, "neighbouring columns of a row that share a scale; 0 is the whole row", low=0, high=65536)


def group_span(group: int, cols: int, step: int = 1) -> int:
    """Columns a group for a matrix of `cols`: `group`, or all of them for 0; ShapeError where groups would not fit.

    A group divides the columns or is a multiple of 8 (the last group is then shorter), and holds whole steps of the coder.
    """
    if group == 0 or group >= cols:
        return cols
    if (cols % group and group % EVEN) or group % step:
        common = [size for size in (8, 16, 32, 64, 128, 256) if size < cols]
        good = [size for size in common if size % step == 0] or [size for size in range(step, cols, step) if size % EVEN == 0][:4]
        sizes = ", ".join(map(str, [*good, 0]))
        why = f"does not hold whole steps of {step} columns" if group % step else f"does not divide {cols} columns"
        raise ShapeError(f"group size {group} {why}; use one of {sizes} (0 is the whole row).")
    return group


def beside(params: Sequence[Params], name: str) -> Tensor:
    """One parameter of all groups, `[..., rows]` each, as `[..., rows, groups]`."""
    return torch.stack([group[name] for group in params], -1)
