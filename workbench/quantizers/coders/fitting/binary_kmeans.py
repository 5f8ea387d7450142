"""Binary codebooks: k-means over sign vectors with centroids in {±1}.

Two ways to measure, both with a centroid step that is optimal for them:
  hamming    every flipped sign costs 1; works on the distinct patterns with their counts (BTC-LLM, arXiv 2506.12040)
  magnitude  a flipped sign costs its weight's size: argmax_k ⟨y, c_k⟩ for y = scale · (w − mean), which is ‖w − scale·c‖²
Ties keep the previous centroid or bit; an empty cluster is given the pattern that loses most; both stop when nothing changes.
Inside, codewords and patterns are integers whose bit j is 1 where sign j is +1.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from workbench.kernels.search import codeword_search

MAX_KMEANS_SWEEPS = 20
TRIAL_VECTORS = 1 << 13  # vectors on which two starts are compared
SAMPLE = 1 << 17  # vectors a codebook is trained on, at most
Assign = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]  # (words, previous index) → index and loss of each point
Best = Callable[[Tensor, Tensor], Tensor]  # (words, index) → the best words for these members
Trained = tuple[Tensor, tuple[float, ...]]  # codebook [entries, length], loss after each sweep


def split_vectors(y: Tensor, length: int) -> Tensor:
    """Rows cut into vectors, `[rows · ceil(cols/length), length]`; the last vector of a row is filled with zeros."""
    return torch.nn.functional.pad(y, (0, -y.shape[1] % length)).reshape(-1, length)


def sample_vectors(matrices: Iterable[Tensor], count: int) -> Tensor:
    """At most 2^17 of the vectors `[n, length]` of `count` matrices, as many of each, drawn with a fixed seed."""
    draw, limit = torch.Generator().manual_seed(0), max(SAMPLE // count, 1)
    return torch.cat([y[torch.randperm(len(y), generator=draw)[:limit]] if len(y) > limit else y for y in matrices])


def find_nearest_codewords(y: Tensor, codebook: Tensor) -> Tensor:
    """Index of the codeword with the largest ⟨y, c⟩ for each row of `y [n, length]`; ties go to the first, int64 `[n]`."""
    return codeword_search.find_nearest_by_magnitude(y, codeword_search.encode_signs(codebook))[0]


def count_patterns(y: Tensor) -> Tensor:
    """How often each of the 2^length sign patterns occurs in `[n, length]`; bit j of a pattern's number is 1 for +1."""
    return torch.bincount(codeword_search.encode_signs(y), minlength=1 << y.shape[1])


def select_most_frequent(counts: Tensor, entries: int) -> Tensor:
    """The numbers of the `entries` most frequent patterns, ties by number: lossless when no more than that occur."""
    return torch.argsort(counts, descending=True, stable=True)[:entries]


def build_even_words(length: int, entries: int) -> list[Tensor]:
    """The words of a linear code of so many `entries`, as numbers; none where `entries` is not a power of two below 2^length.

    All but the last k = log2 entries signs are parities of those: every sign has a label of length − k bits, and the labels of
    a word's −1 add up to zero. Labels are used evenly, those with most bits first, so that few words differ in few signs.
    """
    k = (entries - 1).bit_length()
    parities = length - k
    if entries != 1 << k or parities < 1:
        return []
    single = [1 << j for j in range(parities)]
    others = sorted((label for label in range(1, 1 << parities) if label.bit_count() > 1), key=lambda label: -label.bit_count())
    labels = [*others, *single]
    free = torch.arange(entries)
    word = free << parities
    for i in range(k):
        word ^= (free >> i & 1) * labels[i % len(labels)]
    return [word]


def train_hamming(counts: Tensor, entries: int, length: int) -> Trained:
    """Codebook ±1 `[entries, length]` for pattern counts `[2^length]`, and the flipped signs after each sweep."""
    points = counts.nonzero()[:, 0]
    weight = counts[points].double()

    def assign(words: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
        index, distance = codeword_search.find_nearest_by_hamming(points, words, length, previous)
        return index, weight * distance

    def majority(words: Tensor, index: Tensor) -> Tensor:
        better = words.clone()
        for j in range(length):
            vote = torch.bincount(index, weight * ((points >> j & 1) * 2 - 1), len(words))
            better = torch.where(vote == 0, better, better & ~(1 << j) | (vote > 0).to(torch.int64) << j)
        return better

    words, losses = cluster(select_most_frequent(counts, entries), points, assign, majority)
    return codeword_search.decode_signs(words, length), losses


def train_magnitude(y: Tensor, entries: int, start: Tensor | None = None) -> Trained:
    """Codebook ±1 `[entries, length]` for vectors `y [n, length]`, and the size of flipped weights after each sweep.

    It begins with the codebook `start`; without one with the most frequent sign patterns or with evenly spread ones, whichever
    flips less in the first few thousand vectors. Patterns without a preference (normal weights) want the even ones.
    """
    if start is None:
        few = y[:TRIAL_VECTORS]
        starts = [select_most_frequent(count_patterns(y), entries), *build_even_words(y.shape[1], entries)]
        first = min(
            starts, key=lambda words: codeword_search.find_nearest_by_magnitude(few, words)[1].sum(dtype=torch.float64).item()
        )
    else:
        first = codeword_search.encode_signs(start)

    def assign(words: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
        return codeword_search.find_nearest_by_magnitude(y, words, previous)

    def majority(words: Tensor, index: Tensor) -> Tensor:
        sums = torch.zeros(len(words), y.shape[1]).index_add_(0, index, y)
        return codeword_search.encode_signs(torch.where(sums == 0, codeword_search.decode_signs(words, y.shape[1]), sums))

    words, losses = cluster(first, codeword_search.encode_signs(y), assign, majority)
    return codeword_search.decode_signs(words, y.shape[1]), losses


def stack_round_losses(losses: Sequence[tuple[float, ...]]) -> Tensor:
    """The losses of several codebooks' training as `[codebooks, n]`, NaN where one had stopped."""
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(round_losses) for round_losses in losses], batch_first=True, padding_value=torch.nan
    )


def cluster(words: Tensor, points: Tensor, assign: Assign, best: Best) -> Trained:
    """k-means: assign points to words, take the best words for their members, until nothing changes."""
    index, loss = assign(words, None)
    losses: list[float] = []
    for _ in range(MAX_KMEANS_SWEEPS):
        losses.append(loss.sum(dtype=torch.float64).item())
        updated = best(words, index)
        empty = (torch.bincount(index, minlength=len(words)) == 0).nonzero()[:, 0]
        if len(empty):
            worst = torch.argsort(loss, descending=True, stable=True)[: len(empty)]
            worst = worst[loss[worst] > 0]
            updated[empty[: len(worst)]] = points[worst]
        moved, loss = assign(updated, index)
        if torch.equal(updated, words) and torch.equal(moved, index):
            break
        words, index = updated, moved
    return words, tuple(losses)
