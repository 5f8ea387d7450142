"""Initial scales of several planes, from the largest weights: exact for weights that are already such a sum.

With scales s₁ ≥ s₂ ≥ s₃ the largest size of a group is M = Σ s, and the next ones are M − s₃ (trits) or M − 2 s₂ (two planes of
signs), and so on. On weights of any other kind the sweeps' usual start loses less, and is kept row by row.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.quantizers.coders.fitting.sign_planes import Choose, PlaneScales, sum_planes
from workbench.quantizers.storage_rounding import round_to_fp16

SAME = 1e-4  # sizes that differ by less than this share of the largest are one


def _find_largest_sizes(size: Tensor, count: int) -> list[Tensor]:
    """The `count` largest distinct numbers of each row of `size [rows, cols]`, 0 where there are fewer."""
    sizes = [size.amax(1)]
    for _ in range(count - 1):
        smaller = size < (sizes[-1] - SAME * sizes[0])[:, None]
        sizes.append((size * smaller).amax(1))
    return sizes


def list_sign_starts(w: Tensor, mask: Tensor, mean: bool) -> list[PlaneScales]:
    """Scales of two planes of signs, and the mean where there is one."""
    high, low = w.where(mask, -torch.inf).amax(1), w.where(mask, torch.inf).amin(1)
    middle = ((high + low) / 2).nan_to_num(0, 0, 0) if mean else torch.zeros(len(w))
    largest, next_one = _find_largest_sizes((w - middle[:, None]).abs() * mask, 2)
    small = (largest - next_one) / 2
    scale = round_to_fp16(torch.stack([largest - small, small]))
    return [PlaneScales(scale, round_to_fp16(middle) if mean else None)]


def list_trit_starts(w: Tensor, count: int) -> list[PlaneScales]:
    """Scales of two or three planes of trits."""
    largest, *others = _find_largest_sizes(w.abs(), 2 if count == 2 else 4)
    last = largest - others[0]
    if count == 2:
        return [PlaneScales(round_to_fp16(torch.stack([largest - last, last])))]
    return [PlaneScales(round_to_fp16(torch.stack([other - last, largest - other, last]))) for other in others[1:]]


def choose_best_start(w: Tensor, mask: Tensor, starts: list[PlaneScales], choose: Choose[PlaneScales]) -> PlaneScales:
    """Each row's start of least squared error, of equal ones the first; starts have no scales of columns."""
    everywhere = slice(0, w.shape[1])
    errors = [((sum_planes(choose(w, start), start, everywhere) - w) * mask).square().sum(1) for start in starts]
    best = torch.stack(errors).nan_to_num(torch.inf).argmin(0)
    means = [start.mean for start in starts if start.mean is not None]
    return PlaneScales(_select_rows([start.scale for start in starts], best), _select_rows(means, best) if means else None)


def _select_rows(candidates: Sequence[Tensor], best: Tensor) -> Tensor:
    """Of tensors `[..., rows]`, each row from the candidate with the number `best [rows]`."""
    chosen = candidates[0]
    for number, candidate in enumerate(candidates):
        chosen = torch.where(best == number, candidate, chosen)
    return chosen
