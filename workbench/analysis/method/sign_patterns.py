"""Binary codebooks: sign patterns and their entropy, use of codewords, flipped signs.

A codebook below one bit loses little only where sign patterns are far from evenly spread. Entropies are in bits; divided by
the pattern's length they compare with the codebook's rate, and 1 means that signs are coin flips.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.method.coded_basis import extract_coded_basis
from workbench.errors import ShapeError
from workbench.kernels import formats
from workbench.kernels.formats.codebook import compute_index_width, decode_signs
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.search import codeword_search

MAX_PATTERN_SIGNS = 24
BOOKS = ("binary-codebook", "vector-codebook")


@dataclass(frozen=True)
class SignPatterns:
    """Distinct sign patterns of a matrix cut into vectors of `length` neighbouring columns.

    `table` has a row for each of the most frequent: rank (from 1), pattern ("+-+…"), count, share. `entropy` is in bits a vector,
    corrected for counting only `vectors` of them (Miller and Madow: + (distinct − 1)/(2 vectors) nats), at most `length`.
    """

    length: int
    vectors: int
    distinct: int
    entropy: float
    table: pd.DataFrame

    @property
    def entropy_per_sign(self) -> float:
        """H(pattern)/v: 1 for coin flips, less where a codebook has something to find."""
        return self.entropy / self.length

    @property
    def even_share(self) -> float:
        """The share every pattern would have if all were as likely."""
        return 2.0**-self.length


def count_sign_patterns(weight: Tensor, length: int = 10, top: int = 1024) -> SignPatterns:
    """Count the sign patterns of a matrix whose rows are cut into short vectors.

    The sign of 0 is +; columns past the last whole vector are left out. Where patterns are far from evenly spread, a codebook
    below one bit loses little.

    Args:
        weight: The weight `[rows, cols]`.
        length: Signs of one pattern.
        top: How many of the most frequent patterns the table lists.

    Returns:
        How many patterns occur, their entropy in bits a vector, and a table of the most frequent.

    Raises:
        ShapeError: For a length that is not from 1 to 24 or exceeds the columns.

    Example:
        >>> import torch
        >>> import workbench as wb
        >>> patterns = wb.measures.sign_patterns(torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, -1.0, -1.0, -1.0]]), length=2)
        >>> patterns.table["pattern"].tolist(), patterns.table["count"].tolist()
        (['+−', '−−'], [3, 1])
    """
    if not 1 <= length <= min(MAX_PATTERN_SIGNS, weight.shape[1]):
        most = min(MAX_PATTERN_SIGNS, weight.shape[1])
        raise ShapeError(f"patterns of {length} signs in rows of {weight.shape[1]} columns; use 1 to {most} signs.")
    full_columns = weight.shape[1] // length * length
    numbers, counts = codeword_search.encode_signs(weight[:, :full_columns].reshape(-1, length)).unique(return_counts=True)
    order = torch.argsort(counts, descending=True, stable=True)[:top]
    vectors = int(counts.sum())
    table = pd.DataFrame(
        {
            "rank": range(1, len(order) + 1),
            "pattern": [format_pattern(word, length) for word in numbers[order].tolist()],
            "count": counts[order].tolist(),
            "share": (counts[order] / vectors).tolist(),
        }
    )
    unseen = (len(counts) - 1) / (2 * vectors * math.log(2))
    return SignPatterns(length, vectors, len(counts), min(entropy(counts) + unseen, length), table)


def iterate_codebooks(packed: Packed) -> Iterator[tuple[str, Packed]]:
    """Every binary codebook in a stored layer, with its path (see `Packed.walk`)."""
    return ((path, node) for path, node in packed.walk() if node.format == "binary-codebook")


def tabulate_usage(node: Packed) -> pd.DataFrame:
    """How often this layer uses each codeword, most used first: codeword (its number), pattern, count, share."""
    length, entries = node.facts["length"], node.facts["entries"]
    vectors = node.rows * -(-node.cols // length)
    index = bitpack.unpack(node.tensors["index"], compute_index_width(entries), vectors)
    counts = torch.bincount(index, minlength=entries)
    words = codeword_search.encode_signs(
        bitpack.unpack(node.tensors["codebook"], 1, entries * length).view(entries, length) - 0.5
    )
    order = torch.argsort(counts, descending=True, stable=True)
    return pd.DataFrame(
        {
            "codeword": order.tolist(),
            "pattern": [format_pattern(word, length) for word in words[order].tolist()],
            "count": counts[order].tolist(),
            "share": (counts[order] / vectors).tolist(),
        }
    )


def tabulate_codebooks(packed: Packed, weight: Tensor | None = None) -> pd.DataFrame:
    """Tabulate the binary codebooks of a layer: how they are used, and how many signs they flip.

    Args:
        packed: A stored matrix, the `packed` of what `wb.quantize` gave.
        weight: The original weight `[rows, cols]`; without it flip_rate is missing. Signs are compared in the basis that is
            coded, those of a second plane with what the planes before it leave.

    Returns:
        One row for each codebook: path, length, entries, rate (index bits a sign), used and dead (codewords), index_entropy (what
        the indices would take a sign if they were entropy-coded), flip_rate (share of the signs that the codewords change),
        flip_bound (the least share possible at this rate for evenly spread signs).

    Raises:
        ShapeError: For a weight of another shape.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> stats = wb.calibrate(model, wb.text("calibration"), tokens=128, layers=[layer])
        >>> result = wb.quantize(model, layer, wb.recipe("btc", bits=0.8), stats)
        >>> table = wb.measures.flipped_signs(result.packed, model.weight(layer))
        >>> table[["length", "entries", "rate"]].values.tolist()
        [[10.0, 256.0, 0.8]]
        >>> bool((table["flip_rate"] > table["flip_bound"]).all())
        True
    """
    rows = []
    targets = {} if weight is None else dict(_iterate_coded_targets(packed, weight))
    for path, node in iterate_codebooks(packed):
        length, entries = node.facts["length"], node.facts["entries"]
        counts = torch.tensor(tabulate_usage(node)["count"].to_numpy())
        rate = compute_index_width(entries) / length
        used = int((counts > 0).sum())
        flipped = compute_flip_rate(targets[path], node) if path in targets else None
        rows.append(
            (path, length, entries, rate, used, entries - used, entropy(counts) / length, flipped, compute_flip_bound(rate))
        )
    columns = ["path", "length", "entries", "rate", "used", "dead", "index_entropy", "flip_rate", "flip_bound"]
    return pd.DataFrame(rows, columns=columns)


def _iterate_coded_targets(packed: Packed, weight: Tensor, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Each codebook's path and the matrix `[rows, cols]` whose signs it stands for, given the layer's original weight."""
    inner, target, path = extract_coded_basis(packed, weight, path)
    if inner.format in BOOKS:
        yield path, target
    elif inner.format == "sum":
        for number, child in enumerate(inner.children):
            yield from _iterate_coded_targets(child, target, f"{path}{number}.")
            target = target - formats.decode(child)


def compute_flip_rate(weight: Tensor, node: Packed) -> float:
    """Share of the signs of `weight [rows, cols]` in the coded basis, less the stored mean, that the codewords change.

    The sign of 0 is +.
    """
    if tuple(weight.shape) != (node.rows, node.cols):
        raise ShapeError(f"a weight of shape {list(weight.shape)} does not fit codes of [{node.rows}, {node.cols}].")
    target = weight.to(torch.float32)
    if "mean" in node.tensors:
        mean = node.tensors["mean"].float().repeat_interleave(node.facts["span"], 1)[:, : node.cols]
        target = target - mean
    return float(((target >= 0) != (decode_signs(node) > 0)).float().mean())


def compute_flip_bound(rate: float) -> float:
    """Compute the least share D of flipped signs that a codebook can reach at `rate` bits a sign: rate = 1 − H₂(D).

    It holds for signs that are coin flips (the rate-distortion function of a fair bit).

    Args:
        rate: Bits a sign.

    Returns:
        The share, 0 to 0.5; 0 from 1 bit a sign on.

    Example:
        >>> import workbench as wb
        >>> round(wb.measures.flip_bound(0.5), 4), wb.measures.flip_bound(1)
        (0.11, 0.0)
    """
    low, high = 0.0, 0.5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - binary_entropy(middle) > rate else (low, middle)
    return low if rate < 1 else 0.0


def binary_entropy(share: float) -> float:
    """H₂ in bits."""
    return -sum(p * math.log2(p) for p in (share, 1 - share) if p > 0)


def entropy(counts: Tensor) -> float:
    """Entropy in bits of the distribution that these counts show."""
    share = counts[counts > 0].double() / counts.sum()
    return float(-(share * share.log2()).sum()) + 0.0


def format_pattern(word: int, length: int) -> str:
    """A pattern as plus and minus signs, first column first."""
    return "".join("+" if word >> j & 1 else "−" for j in range(length))
