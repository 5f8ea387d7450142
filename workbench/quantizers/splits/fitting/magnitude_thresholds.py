"""Thresholds on magnitude that divide weights into groups, each coded with one sign per weight and one scale per row.

A group of N weights of a row, coded as ±α with the best α, keeps (Σ|w|)²/N of its energy. With counts and sums between all
candidate thresholds this is known for every group at once, and the search is exact over the candidates. (The published
codes binarize the block anew for every candidate, with a mean; the mean of a group is close to zero.)
"""

import torch
from torch import Tensor

SHARES = torch.linspace(0.1, 0.9, 81)  # of the weights that lie below a candidate
THRESHOLD_SHARES = torch.linspace(0.1, 0.9, 160)


def search_thresholds(size: Tensor, member: Tensor, groups: int, search: str) -> Tensor:
    """`groups − 1` ascending thresholds on `size [rows, k]` (magnitudes), of which only those at `member` count.

    "joint" tries all pairs (three groups), "greedy" peels off the largest group first as ARB-LLM (arXiv 2410.03129) does,
    "double" ties the second threshold to twice the first as STBLLM (arXiv 2408.01803) does. Two groups are BiLLM's bell split.
    """
    member_sizes = size[member]
    if groups == 1 or not len(member_sizes):
        return torch.zeros(groups - 1)
    doubled = search == "double" and groups == 3
    low = quantiles(member_sizes, THRESHOLD_SHARES if doubled else SHARES)
    levels, order = torch.sort(torch.cat([low, 2 * low]), stable=True) if doubled else (low, torch.arange(len(low)))
    energy = _compute_kept_energy(size, member, levels)
    last = len(levels) + 1
    if groups == 2:
        return levels[[int((energy[0] + energy[:, last])[1:last].argmax())]]
    if doubled:
        edge = torch.argsort(order) + 1  # of each candidate among all levels
        first, second = edge[: len(low)], edge[len(low) :]
        best = (energy[0, first] + energy[first, second] + energy[second, last]).argmax()
        return torch.stack([low[best], 2 * low[best]])
    if search == "greedy":
        upper = int((energy[0] + energy[:, last])[1:last].argmax()) + 1
        lower = int((energy[0] + energy[:, upper])[1 : upper + 1].argmax()) + 1
        return levels[[lower - 1, upper - 1]]
    both = (energy[0, :, None] + energy + energy[:, last])[1:last, 1:last].triu()
    pair = int(both.argmax())
    return levels[[pair // (last - 1), pair % (last - 1)]]


def quantiles(values: Tensor, shares: Tensor) -> Tensor:
    """The values below which these shares of all values lie."""
    ordered = values.sort().values
    return ordered[(shares * (len(ordered) - 1)).round().long()]


def _compute_kept_energy(size: Tensor, member: Tensor, levels: Tensor) -> Tensor:
    """Σ_rows (Σ|w|)²/N of the weights between edges a < b, `[levels + 2, levels + 2]`; zero elsewhere.

    Edge 0 is zero, edge i is `levels[i − 1]`, the last edge is infinite.
    """
    bucket = torch.bucketize(size, levels)
    shape = (len(size), len(levels) + 1)
    count = torch.zeros(shape).scatter_add_(1, bucket, member.float()).cumsum(1)
    total = torch.zeros(shape).scatter_add_(1, bucket, size * member).cumsum(1)
    count, total = (torch.nn.functional.pad(x, (1, 0)) for x in (count, total))
    energy = torch.zeros(shape[1] + 1, shape[1] + 1)
    for a in range(shape[1]):
        n = (count[:, a + 1 :] - count[:, a, None]).clamp(min=1)
        energy[a, a + 1 :] = ((total[:, a + 1 :] - total[:, a, None]).square() / n).sum(0)
    return energy


def split_by_size(size: Tensor, member: Tensor, limits: Tensor) -> list[Tensor]:
    """Masks of the groups between ascending thresholds, smallest magnitudes first."""
    number = torch.bucketize(size, limits)
    return [member & (number == group) for group in range(len(limits) + 1)]
