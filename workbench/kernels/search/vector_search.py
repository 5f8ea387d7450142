"""Search for the nearest of a few real-valued codewords under a scale of each vector: exact, all codewords are compared.

Plain torch multiplies with all codewords, in pieces; the compiled search keeps the best so far of 32 vectors in registers. Sums
may be rounded otherwise there, so where two codewords are within rounding of each other the two may choose differently.
"""

import torch
from torch import Tensor

from workbench.interrupts import defer_interrupts
from workbench.kernels.forced_backend import choose_searcher

MIN_COMPILED_COMPARISONS = 1 << 16  # pairs of vector and codeword from which on compiled code pays: it is called often
VECTOR_PRODUCTS_AT_ONCE = 1 << 21  # products held at a time


def explain(pairs: int, device: str = "cpu") -> tuple[str, str]:
    """("numba" or "reference", one sentence why) for so many pairs of vector and codeword."""
    return choose_searcher(pairs, MIN_COMPILED_COMPARISONS, "pairs of vector and codeword", device)


def find_nearest_vectors(w: Tensor, scale: Tensor, words: Tensor) -> Tensor:
    """Number of the codeword c with the least ‖w − scale · c‖² for each row of `w [n, length]` and `scale [n, 1]`, int64 `[n]`.

    That is the largest scale · ⟨w, c⟩ − scale² ‖c‖²/2; ties go to the first of `words [entries, length]`.
    """
    half = words.square().sum(1) / 2
    if explain(len(w) * len(words), w.device.type)[0] == "numba":
        with defer_interrupts():
            from workbench.kernels.search.numba import vectors

        return torch.from_numpy(vectors.find_nearest_vectors(w.numpy(), scale.numpy(), words.numpy(), half.numpy()))
    size = max(VECTOR_PRODUCTS_AT_ONCE // len(words), 1)
    pieces = zip(w.split(size), scale.split(size), strict=True)
    return torch.cat(
        [(piece_scale * (piece @ words.mT) - piece_scale.square() * half).argmax(1) for piece, piece_scale in pieces]
    )
