"""Search for the nearest codeword of each sign vector, by Hamming distance or by the magnitude of the flipped weights.

Codewords are integers: bit j is 1 where sign j is +1. Both searches are exact, and ties go to the previous codeword, else to
the smallest number. Plain torch multiplies with all codewords, in pieces; the compiled search counts bits, or skips codewords
that cannot win. Sums of sizes are added in another order there, so where two codewords are within rounding of each other
the two may choose differently.
"""

import torch
from torch import Tensor

from workbench.interrupts import defer_interrupts
from workbench.kernels.forced_backend import choose_searcher

MIN_COMPILED_PAIRS = 1 << 22  # pairs of vector and codeword from which on loading the compiled search pays
PRODUCTS_AT_ONCE = 1 << 20  # products held at a time
WIDE_CHUNK = 1 << 26  # the same on a GPU
MAX_CODEWORD_SIGNS = 24  # signs a codeword may have


def explain(pairs: int, device: str = "cpu") -> tuple[str, str]:
    """("numba" or "reference", one sentence why) for so many pairs of vector and codeword."""
    return choose_searcher(pairs, MIN_COMPILED_PAIRS, "pairs of vector and codeword", device)


def encode_signs(y: Tensor) -> Tensor:
    """The sign pattern of each row of `y [n, length]` as an integer, int64 `[n]`; sign(0) is +1."""
    total = torch.zeros(len(y), dtype=torch.int64, device=y.device)
    for j in range(y.shape[1]):
        total |= (y[:, j] >= 0).to(torch.int64) << j
    return total


def decode_signs(words: Tensor, length: int) -> Tensor:
    """The sign patterns of these integers, ±1 float32 `[n, length]`."""
    return (words[:, None] >> torch.arange(length, device=words.device) & 1).float() * 2 - 1


def find_nearest_by_hamming(points: Tensor, words: Tensor, length: int, previous: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Number of the nearest of `words [c]` for each of `points [n]`, and how many of the `length` signs differ; int64 `[n]`."""
    if explain(len(points) * len(words), points.device.type)[0] == "numba":
        with defer_interrupts():
            from workbench.kernels.search.numba import hamming

        result = hamming.find_nearest_codewords(points.numpy(), words.numpy(), None if previous is None else previous.numpy())
        return torch.from_numpy(result[0]), torch.from_numpy(result[1])
    if points.device.type == "cpu":
        pieces = points.split(max(PRODUCTS_AT_ONCE // len(words), 1))
        index = torch.cat([_find_best_product(decode_signs(piece, length), decode_signs(words, length)) for piece in pieces])
    else:
        index = find_fewest_flips(points, words)
    distance = count_differing_bits(points, words[index])
    if previous is not None:
        keep = count_differing_bits(points, words[previous]) == distance
        index = torch.where(keep, previous, index)
    return index, distance


def find_nearest_by_magnitude(y: Tensor, words: Tensor, previous: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Number of the codeword with the largest ⟨y, c⟩ for each row of `y [n, length]`, and Σ|y| over its flipped signs.

    Returns int64 and float32 `[n]`.
    """
    if explain(len(y) * len(words), y.device.type)[0] == "numba":
        with defer_interrupts():
            from workbench.kernels.search.numba import weighted_hamming

        result = weighted_hamming.find_nearest_codewords(y.numpy(), words.numpy(), None if previous is None else previous.numpy())
        return torch.from_numpy(result[0]), torch.from_numpy(result[1])
    codebook = decode_signs(words, y.shape[1])
    index = torch.cat([_find_best_product(piece, codebook) for piece in y.split(max(PRODUCTS_AT_ONCE // len(words), 1))])
    cost = sum_flipped_weights(y, codebook[index])
    if previous is not None:
        before = sum_flipped_weights(y, codebook[previous])
        keep = before <= cost
        index, cost = torch.where(keep, previous, index), torch.where(keep, before, cost)
    return index, cost


def _find_best_product(y: Tensor, codebook: Tensor) -> Tensor:
    """The first codeword with the largest product, int64 `[n]`."""
    return (y @ codebook.mT).argmax(1)


def sum_flipped_weights(y: Tensor, chosen: Tensor) -> Tensor:
    """Σ|y| where the signs of `chosen` differ from those of `y`, `[n]`."""
    return torch.where((y >= 0) == (chosen > 0), 0.0, y.abs()).sum(1)


def find_fewest_flips(points: Tensor, words: Tensor) -> Tensor:
    """The first codeword that differs in the fewest bits, by XOR and counting ones: for a GPU, where products are no faster."""
    short, size = words.to(torch.int32), max(WIDE_CHUNK // len(words), 1)
    return torch.cat([_count_ones(piece[:, None] ^ short).argmin(1) for piece in points.to(torch.int32).split(size)])


def count_differing_bits(points: Tensor, chosen: Tensor) -> Tensor:
    """How many bits differ, int64 `[n]`."""
    return _count_ones(points ^ chosen)


def _count_ones(words: Tensor) -> Tensor:
    """The number of ones of integers below 2^24, in pairs, fours, bytes."""
    words = words - (words >> 1 & 0x555555)
    words = (words & 0x333333) + (words >> 2 & 0x333333)
    words = words + (words >> 4) & 0x0F0F0F
    return (words + (words >> 8) + (words >> 16)) & 0xFF
