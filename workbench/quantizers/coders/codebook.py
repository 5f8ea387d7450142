"""Binary codebooks: k-means over sign vectors with centroids in {±1}.

Two ways to measure, both with a centroid step that is optimal for them:
  hamming    every flipped sign costs 1; works on the distinct patterns with their counts (BTC-LLM, arXiv 2506.12040)
  magnitude  a flipped sign costs its weight's size: argmax_k ⟨y, c_k⟩ for y = scale · (w − mean), which is ‖w − scale·c‖²
Ties keep the previous centroid or bit; an empty cluster is given the pattern that loses most; both stop when nothing changes.
"""

import torch
from torch import Tensor

SWEEPS = 20
CHUNK = 1 << 22  # similarities held at a time


def vectors(y: Tensor, length: int) -> Tensor:
    """Rows cut into vectors, `[rows · ceil(cols/length), length]`; the last vector of a row is filled with zeros."""
    return torch.nn.functional.pad(y, (0, -y.shape[1] % length)).reshape(-1, length)


def nearest(y: Tensor, codebook: Tensor) -> Tensor:
    """Index of the codeword with the largest ⟨y, c⟩ for each row of `y [n, length]`; ties go to the first, int64 `[n]`."""
    size = max(CHUNK // len(codebook), 1)
    return torch.cat([(piece @ codebook.mT).argmax(1) for piece in y.split(size)])


def pattern_counts(y: Tensor) -> Tensor:
    """How often each of the 2^length sign patterns occurs in `[n, length]`; bit j of a pattern's number is 1 for +1."""
    length = y.shape[1]
    numbers = (y >= 0).to(torch.int64) @ (1 << torch.arange(length))
    return torch.bincount(numbers, minlength=1 << length)


def patterns(numbers: Tensor, length: int) -> Tensor:
    """The sign patterns of these numbers, ±1 `[n, length]`."""
    return (numbers[:, None] >> torch.arange(length) & 1).float() * 2 - 1


def most_frequent(counts: Tensor, entries: int, length: int) -> Tensor:
    """The `entries` most frequent patterns, ties by number: lossless when no more than that occur."""
    return patterns(torch.argsort(counts, descending=True, stable=True)[:entries], length)


def train_hamming(counts: Tensor, entries: int, length: int) -> tuple[Tensor, tuple[float, ...]]:
    """Codebook ±1 `[entries, length]` for pattern counts `[2^length]`, and the flipped signs after each sweep."""
    numbers = counts.nonzero()[:, 0]
    points, weight = patterns(numbers, length), counts[numbers].float()
    return train(points, weight[:, None] * points, most_frequent(counts, entries, length))


def train_magnitude(y: Tensor, entries: int) -> tuple[Tensor, tuple[float, ...]]:
    """Codebook ±1 `[entries, length]` for vectors `y [n, length]`, and the size of flipped weights after each sweep."""
    return train(y, y, most_frequent(pattern_counts(y), entries, y.shape[1]))


def train(points: Tensor, pull: Tensor, codebook: Tensor) -> tuple[Tensor, tuple[float, ...]]:
    """Binary k-means: assign `points` to the codeword with the largest product, then take the sign of their summed `pull`.

    A point's loss is Σ|pull| over the flipped signs. `pull` is a positive multiple of its point.
    """
    index = nearest(points, codebook)
    losses: list[float] = []
    for _ in range(SWEEPS):
        loss = (pull.abs().sum(1) - (pull * codebook[index]).sum(1)) / 2
        losses.append(loss.sum(dtype=torch.float64).item())
        sums = torch.zeros_like(codebook).index_add_(0, index, pull)
        updated = torch.where(sums == 0, codebook, sums.sign())
        empty = (torch.bincount(index, minlength=len(codebook)) == 0).nonzero()[:, 0]
        worst = torch.argsort(loss, descending=True, stable=True)[: len(empty)]
        worst = worst[loss[worst] > 0]
        updated[empty[: len(worst)]] = torch.where(points[worst] >= 0, 1.0, -1.0)
        moved = nearest(points, updated)
        tie = (points * updated[index]).sum(1) >= (points * updated[moved]).sum(1)
        moved = torch.where(tie, index, moved)
        if torch.equal(updated, codebook) and torch.equal(moved, index):
            break
        codebook, index = updated, moved
    return codebook, tuple(losses)
