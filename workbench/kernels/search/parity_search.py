"""Search for the nearest signs that satisfy parity checks (see `packing.parity_code`), and recovery of all signs."""

import torch
from torch import Tensor

from workbench.interrupts import defer_interrupts
from workbench.kernels.forced_backend import choose_searcher
from workbench.kernels.packing.parity_code import MEMORY, ParityCode

MIN_COMPILED_STEPS = 1 << 12  # steps through a state from which on a compiled call pays; there is one for every column


def explain(steps: int, device: str = "cpu") -> tuple[str, str]:
    """("numba" or "reference", one sentence why) for so many steps through a state."""
    return choose_searcher(steps, MIN_COMPILED_STEPS, "steps through a state", device)


def complete(stored: Tensor, code: ParityCode, rows: int) -> Tensor:
    """`ParityCode.complete`."""
    if explain(rows * stored.shape[1], stored.device.type)[0] == "numba":
        with defer_interrupts():
            from workbench.kernels.search.numba import parity

        return torch.from_numpy(parity.complete(stored.numpy(), code, rows))
    return code.complete(stored, rows)


def find_nearest_signs(y: Tensor, code: ParityCode) -> Tensor:
    """The signs under `code` that lose least of y: bool `[rows, cols]`, true for −1, with the smallest Σ|y| of other sign.

    Exact, one column of `y [rows, cols]` at a time; for y = scale · w that is the least ‖w − scale · sign‖² of a column.
    """
    rows, cols = y.shape
    if explain(rows * cols << MEMORY, y.device.type)[0] == "numba":
        with defer_interrupts():
            from workbench.kernels.search.numba import parity

        return torch.from_numpy(parity.find_nearest_signs(y.numpy(), code)).mT.contiguous()
    return search(y, code)


def search(y: Tensor, code: ParityCode) -> Tensor:
    """`nearest` in plain torch, all columns at once."""
    rows, cols = y.shape
    states = 1 << MEMORY
    numbers = torch.arange(states, device=y.device)
    cost = torch.full((cols, states), torch.inf, device=y.device)
    cost[:, 0] = 0
    flips, masks = torch.empty(rows, cols, states, dtype=torch.bool, device=y.device), code.masks(rows)
    for row, mask in enumerate(masks):
        loss = y[row].abs()[:, None]
        positive, negative = torch.where(y[row][:, None] < 0, loss, 0.0), torch.where(y[row][:, None] < 0, 0.0, loss)
        stay, flip = cost + positive, cost[:, numbers ^ mask] + negative
        flips[row] = flip < stay
        cost = torch.minimum(stay, flip)
        if code.closes(row):  # only an even check may close; the others move up
            cost = torch.cat([cost[:, ::2], torch.full_like(cost[:, ::2], torch.inf)], 1)
    state, every = cost.argmin(1), torch.arange(cols, device=y.device)
    signs = torch.empty(rows, cols, dtype=torch.bool, device=y.device)
    for row in reversed(range(rows)):
        state = state * 2 if code.closes(row) else state
        signs[row] = flips[row][every, state]
        state = torch.where(signs[row], state ^ masks[row], state)
    return signs
