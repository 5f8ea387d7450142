"""The best path through a bitshift trellis (see `packing.trellis_code`): Viterbi's algorithm, compiled or in plain torch."""

import torch
from torch import Tensor

from workbench.interrupts import defer_interrupts
from workbench.kernels.forced_backend import read_forced_backend
from workbench.kernels.packing import trellis_code

SETTLED = 6  # steps on each side of a ring's seam that choose its bits, in lengths of a state


def find_nearest_codes(w: Tensor, scale: Tensor, bits: int, length: int, state: int) -> Tensor:
    """Codes `[rows, ceil(cols/length)]` of the rings nearest to `w [rows, cols]`, whose rows have sizes `scale [rows]`.

    A step past the last column looks at real columns only.
    """
    words, full_columns = trellis_code.compute_state_values(state, length).to(w.device), w.shape[1] // length * length
    pieces = [search_scaled(w[:, :full_columns].reshape(len(w), -1, length), scale, words, bits)] if full_columns else []
    if full_columns < w.shape[1]:
        rest = w[:, full_columns:]
        pieces.append(search_scaled(rest[:, None], scale, words[:, : rest.shape[1]], bits))
    return torch.cat(pieces, 1)


def search_scaled(y: Tensor, scale: Tensor, words: Tensor, bits: int) -> Tensor:
    """`search` in units in which neither sizes nor squares overflow."""
    unit = y.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    return search(y / unit, scale / unit, words, bits)


def search(y: Tensor, scale: Tensor, words: Tensor, bits: int) -> Tensor:
    """Codes `[steps, n]` of n rings with a small Σ ‖y − scale · words[state]‖²: Viterbi's algorithm, twice.

    `y [steps, n, length]`, `scale [steps]`, `words [2^state, length]`, where a state has at most steps · bits bits. The first
    pass sees the steps around the seam and chooses the bits that both ends have in common; the second is the best path with
    these.
    """
    state = (len(words) - 1).bit_length()
    near, common = SETTLED * -(-state // bits), state - bits
    around = torch.arange(-near, near, device=y.device) % len(y)  # more than once round a short ring
    seam = _find_best_path(y[around], scale[around], words, bits, None)[near - 1] & (1 << common) - 1
    return _find_best_path(y, scale, words, bits, seam) & (1 << bits) - 1


def _find_best_path(y: Tensor, scale: Tensor, words: Tensor, bits: int, seam: Tensor | None) -> Tensor:
    """States `[steps, n]` of the best paths; with `seam [n]`, those that begin after and end in these common bits."""
    if read_forced_backend() == "reference" or y.device.type != "cpu":
        ends = [None] * y.shape[1] if seam is None else seam.tolist()
        return torch.stack([_search_plain_path(y[:, i], scale, words, bits, end) for i, end in enumerate(ends)], 1)
    with defer_interrupts():
        from workbench.kernels.search.numba import viterbi

    seams = torch.full((y.shape[1],), -1) if seam is None else seam
    return torch.from_numpy(viterbi.find_best_paths(y.numpy(), scale.numpy(), words.numpy(), bits, seams.numpy()))


def _search_plain_path(y: Tensor, scale: Tensor, words: Tensor, bits: int, seam: int | None) -> Tensor:
    """One path `[steps]` for `y [steps, length]`, a step at a time over all states."""
    count, branches = len(words), 1 << bits
    size = words.square().sum(1)
    reached = torch.zeros(count // branches, device=y.device)  # cost of the best path to each set of common bits
    if seam is not None:
        reached = torch.full_like(reached, trellis_code.NEVER).index_fill(0, torch.tensor(seam, device=y.device), 0.0)
    chosen = []
    for row_values, factor in zip(y, scale, strict=True):
        cost = reached.repeat_interleave(branches) + factor.square() * size - 2 * factor * (words @ row_values)
        reached, oldest = cost.view(branches, -1).min(0)
        chosen.append(oldest)
    common = int(reached.argmin()) if seam is None else seam
    path = []
    for oldest in reversed(chosen):
        path.append(int(oldest[common]) * len(oldest) + common)
        common = path[-1] // branches
    return torch.tensor(path[::-1], device=y.device)
