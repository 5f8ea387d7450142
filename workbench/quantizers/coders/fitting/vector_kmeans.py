"""Real-valued codebooks: k-means on vectors of neighbouring weights, and the nearest codeword under a scale of each row."""

import torch
from torch import Tensor

from workbench.guided_moments import split_rows
from workbench.kernels.search.vector_search import find_nearest_vectors
from workbench.quantizers.coders.fitting.binary_kmeans import Trained, cluster


def train(y: Tensor, entries: int) -> Trained:
    """Codebook `[entries, length]` for vectors `y [n, length]`, and the squared error after each sweep.

    Lloyd's algorithm from a sample of the vectors drawn with a fixed seed; an unused codeword takes the worst-coded vector.
    """
    draw = torch.Generator().manual_seed(0)
    order = torch.randperm(len(y), generator=draw)
    start = y[order.repeat(-(-entries // len(y)))[:entries]]
    unit = torch.ones(len(y), 1)

    def assign(words: Tensor, _previous: Tensor | None) -> tuple[Tensor, Tensor]:
        index = find_nearest_vectors(y, unit, words)
        return index, (y - words[index]).square().sum(1)

    def means(words: Tensor, index: Tensor) -> Tensor:
        count = torch.bincount(index, minlength=len(words))[:, None]
        total = torch.zeros_like(words).index_add_(0, index, y)
        return torch.where(count > 0, total / count.clamp(min=1), words)

    return cluster(start, y, assign, means)


def find_nearest_under_metric(metric: Tensor, w: Tensor, scale: Tensor, words: Tensor, column: Tensor | None = None) -> Tensor:
    """Number of the codeword with the least e M eᵀ, e = w − scale · column · c, for each vector of the rows of `w [rows, k]`.

    M are the vector's own columns in `metric [k, k]`, or with `[groups, k, k]` in that of the row's group; `scale [rows, 1]`,
    `column [k]`; returns int64 `[rows, ceil(k/length)]`.
    """
    if metric.ndim == 3:
        parts = zip(split_rows(len(w), len(metric)), metric, strict=True)
        return torch.cat([find_nearest_under_metric(m, w[part], scale[part], words, column) for part, m in parts])
    codes = []
    for start in range(0, w.shape[1], words.shape[1]):
        columns = slice(start, min(start + words.shape[1], w.shape[1]))
        root = torch.linalg.cholesky(metric[columns, columns]).to(w.dtype)
        book, number = (
            _find_distinct_words(words[:, : columns.stop - start]) if columns.stop - start < words.shape[1] else (words, None)
        )
        indices = find_nearest_vectors(w[:, columns] @ root, scale, (book if column is None else book * column[columns]) @ root)
        codes.append(indices if number is None else number[indices])
    return torch.stack(codes, 1)


def _find_distinct_words(words: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows of `words`, and the first number of each: rounding must not choose among equals."""
    distinct, which = words.unique(dim=0, return_inverse=True)
    first = torch.full((len(distinct),), len(words)).scatter_reduce(0, which, torch.arange(len(words)), "amin")
    return distinct, first
