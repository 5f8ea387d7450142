"""BTC-LLM on one page: a weight matrix below one bit per weight, in plain torch, from the transform to the matmul.

    transform → alternating binarization → binary codebook → block compensation → packed bits → product by lookup

The method is that of BTC-LLM (arXiv 2506.12040, no code was released), with the alternating binarization of ARB-LLM (arXiv
2410.03129) and the error compensation of GPTQ (arXiv 2210.17323) for blocks of columns. The transform here is a random Hadamard
matrix; the learned one is in `workbench.quantizers.learning`. This page imports nothing of the workbench, and a test holds that
it stores the same bits as the recipe `btc:assignment=hamming,mean=yes,scope=matrix,transform=hadamard,shrinkage=0`.

    >>> import torch
    >>> weight, inputs = torch.randn(64, 128), torch.randn(4096, 128)
    >>> stored = quantize(weight, inputs.T @ inputs / len(inputs))
    >>> f"{8 * stored.bytes / weight.numel():.2f} bits per weight"
    '1.39 bits per weight'
    >>> bool((multiply(inputs[:4], stored) - inputs[:4] @ decode(stored).T).abs().max() < 1e-3)
    True

The codebook is most of what so small a matrix stores; layers of a real model share one, which leaves 0.8 bits and the scales.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

DAMPING = 0.01  # added to the second moment, as a share of its mean diagonal
RIDGE = 1e-6  # keeps the equations for a row of equal signs solvable


@dataclass(frozen=True)
class Stored:
    """All that is kept of a matrix `[rows, cols]`: bits and fp16 numbers, nothing else."""

    index: np.ndarray  # which codeword, log2(entries) bits for every `length` columns of a row
    codebook: np.ndarray  # one bit a sign
    scale: Tensor  # fp16 [rows]
    mean: Tensor  # fp16 [rows]
    flips: np.ndarray  # one bit a column: the random signs of the transform
    shape: tuple[int, int]
    length: int
    entries: int

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return self.index.nbytes + self.codebook.nbytes + self.flips.nbytes + self.scale.nbytes + self.mean.nbytes


def quantize(weight: Tensor, moment: Tensor, length: int = 10, entries: int = 256, seed: int = 0) -> Stored:
    """Quantize `weight [rows, cols]` for inputs with the second moment `moment [cols, cols]`; cols is a power of two."""
    rows, cols = weight.shape
    flips = torch.randint(2, (cols,), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
    w = rotate(weight.float(), flips)  # 1. outliers are spread over all columns
    h = rotate(rotate(moment.float(), flips).mT, flips)
    scale, mean = binarize(w, *_estimate_scale_mean(w), sweeps=15)  # 2. one scale and one mean a row, for signs that are free
    codebook = train_codebook((w - mean[:, None]) * scale[:, None], length, entries)  # 3. few patterns of signs instead
    scale, mean = binarize(w, scale, mean, sweeps=5, codebook=codebook)
    index = _encode_columns(w, h, scale, mean, codebook)  # 4. every error is made up for by the columns that follow
    scale, mean = _fit_rows(w, _gather_signs(index, codebook, cols), h, scale, mean)
    shape, width = (rows, cols), (entries - 1).bit_length()
    return Stored(
        pack(index, width), pack(codebook > 0, 1), scale.half(), mean.half(), pack(flips > 0, 1), shape, length, entries
    )


def rotate(x: Tensor, flips: Tensor) -> Tensor:
    """x D H for signs D and Sylvester's Hadamard matrix H over √cols, which is orthonormal: nothing is lost by it."""
    y, cols = x * flips, x.shape[-1]
    step = 1
    while step < cols:
        left, right = y.unflatten(-1, (-1, 2, step)).unbind(-2)
        y = torch.stack([left + right, left - right], -2).flatten(-3)
        step *= 2
    return y / cols**0.5


def round_to_fp16(x: Tensor) -> Tensor:
    """Numbers as they will be stored: an error is measured after rounding, never before."""
    return x.half().float()


def _estimate_scale_mean(w: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and mean of every row in closed form: the mean weight, and the mean size of what it leaves."""
    mean = round_to_fp16(w.mean(1))
    return round_to_fp16((w - mean[:, None]).abs().mean(1)), mean


def binarize(w: Tensor, scale: Tensor, mean: Tensor, sweeps: int, codebook: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scale and mean of every row: solved for fixed signs, then signs are chosen anew, as long as the error falls."""
    least = torch.inf
    best = scale, mean
    for _ in range(sweeps + 1):
        signs = _choose_signs(w, scale, mean, codebook)
        error = (w - scale[:, None] * signs - mean[:, None]).double().square().sum().item()
        if error >= least:
            break
        least, best = error, (scale, mean)
        scale, mean = solve(w, signs, torch.eye(w.shape[1]))
    return best


def _choose_signs(w: Tensor, scale: Tensor, mean: Tensor, codebook: Tensor | None) -> Tensor:
    """The nearest signs ±1 `[rows, cols]`, free or from a codebook."""
    signs = torch.where((w - mean[:, None]) * scale[:, None] >= 0, 1.0, -1.0)
    return signs if codebook is None else _gather_signs(_find_nearest(signs, codebook), codebook, w.shape[1])


def solve(w: Tensor, signs: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and mean of every row that lose least of tr(E H Eᵀ) for these signs: two equations a row."""
    basis = torch.stack([signs, torch.ones_like(signs)], 1)  # [rows, 2, cols]
    reach = basis @ h
    gram, right = (reach @ basis.mT).double(), (reach @ w[:, :, None]).double()
    ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(2, dtype=torch.float64)
    scale, mean = torch.linalg.solve(gram + ridge, right)[..., 0].float().unbind(1)
    return round_to_fp16(scale), round_to_fp16(mean)


def train_codebook(y: Tensor, length: int, entries: int) -> Tensor:
    """Codewords ±1 `[entries, length]` by k-means on sign patterns: assign to the nearest, then let each sign be voted on."""
    bits = (split_vectors(y, length) >= 0).long() @ (1 << torch.arange(length))  # a pattern as an integer
    count = torch.bincount(bits, minlength=1 << length)
    patterns = count.nonzero()[:, 0]
    weight, points = count[patterns].double(), unpack_signs(patterns, length)
    words = unpack_signs(count.argsort(descending=True, stable=True)[:entries], length)  # begin with the most frequent
    index, flipped = assign(points, words, None)
    for _ in range(20):
        votes = torch.zeros(entries, length, dtype=torch.float64).index_add_(0, index, weight[:, None] * points)
        updated = torch.where(votes == 0, words, torch.where(votes > 0, 1.0, -1.0))
        unused = (torch.bincount(index, minlength=entries) == 0).nonzero()[:, 0]
        worst = (weight * flipped).argsort(descending=True, stable=True)[: len(unused)]
        worst = worst[flipped[worst] > 0]
        updated[unused[: len(worst)]] = points[worst]  # a codeword that nothing uses becomes the pattern that loses most
        moved, flipped = assign(points, updated, index)
        if torch.equal(updated, words) and torch.equal(moved, index):
            break
        words, index = updated, moved
    return words


def assign(points: Tensor, words: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
    """The nearest word of every pattern by Hamming distance, and that distance; a tie goes to the previous word, or the first."""
    distance = (points.shape[1] - points @ words.mT) / 2
    flipped, index = distance.min(1)[0], distance.argmin(1)
    if previous is not None:
        index = torch.where(distance.gather(1, previous[:, None])[:, 0] == flipped, previous, index)
    return index, flipped


def _encode_columns(w: Tensor, h: Tensor, scale: Tensor, mean: Tensor, codebook: Tensor) -> Tensor:
    """The codeword of every vector, left to right; each error moves on to later columns, where the inputs make up for it.

    With Uᵀ U = H⁻¹ (upper), an error D of the columns b is repaired best when the columns r after them move by −D U_bb⁻¹ U_br.
    """
    x, length, damped = w.clone(), codebook.shape[1], (h.double() + h.double().mT) / 2
    damped.diagonal().add_(DAMPING * damped.diagonal().mean())
    u = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True).float()
    pieces = []
    for start in range(0, w.shape[1], length):
        b, rest = slice(start, start + length), slice(start + length, None)
        pieces.append(_find_nearest(torch.where((x[:, b] - mean[:, None]) * scale[:, None] >= 0, 1.0, -1.0), codebook))
        values = scale[:, None] * _gather_signs(pieces[-1], codebook, x[:, b].shape[1]) + mean[:, None]
        x[:, rest] -= torch.linalg.solve_triangular(u[b, b], x[:, b] - values, upper=True, left=False) @ u[b, rest]
    return torch.cat(pieces, 1)


def _fit_rows(w: Tensor, signs: Tensor, h: Tensor, scale: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and means once more, for the final signs and the layer's own inputs; every row keeps the better."""
    damped = h + DAMPING * h.diagonal().mean() * torch.eye(len(h))

    def loss(scale: Tensor, mean: Tensor) -> Tensor:
        error = w - scale[:, None] * signs - mean[:, None]
        return ((error @ h) * error).sum(1)

    new = solve(w, signs, damped)
    better = loss(*new) < loss(scale, mean)
    return torch.where(better, new[0], scale), torch.where(better, new[1], mean)


def split_vectors(y: Tensor, length: int) -> Tensor:
    """Rows cut into vectors `[rows · ceil(cols/length), length]`; the last one of a row is filled with zeros."""
    return torch.nn.functional.pad(y, (0, -y.shape[1] % length)).reshape(-1, length)


def _find_nearest(signs: Tensor, codebook: Tensor) -> Tensor:
    """The number of the nearest codeword of every vector, `[rows, ceil(cols/length)]`: the largest ⟨signs, codeword⟩."""
    return (split_vectors(signs, codebook.shape[1]) @ codebook.mT).argmax(1).view(len(signs), -1)


def _gather_signs(index: Tensor, codebook: Tensor, cols: int) -> Tensor:
    """±1 `[rows, cols]`."""
    return codebook[index].flatten(1)[:, :cols]


def unpack_signs(numbers: Tensor, length: int) -> Tensor:
    """±1 `[n, length]`: sign j is bit j."""
    return (numbers[:, None] >> torch.arange(length) & 1).float() * 2 - 1


def pack(numbers: Tensor, width: int) -> np.ndarray:
    """Integers in `width` bits each, lowest bit first, without gaps: uint8."""
    return np.packbits((numbers.reshape(-1, 1).long() >> torch.arange(width) & 1).bool().numpy(), bitorder="little")


def unpack(stream: np.ndarray, width: int, count: int) -> Tensor:
    """The inverse of `pack`: int64 `[count]`."""
    bits = torch.from_numpy(np.unpackbits(stream, count=count * width, bitorder="little").astype(np.int64))
    return bits.view(count, width) @ (1 << torch.arange(width))


def _unpack_stored(stored: Stored) -> tuple[Tensor, Tensor, Tensor]:
    """Index `[rows, vectors]`, codebook ±1 `[entries, length]` and flips ±1 `[cols]`, out of their bits."""
    (rows, cols), entries, length = stored.shape, stored.entries, stored.length
    index = unpack(stored.index, (entries - 1).bit_length(), rows * -(-cols // length)).view(rows, -1)
    codebook = unpack(stored.codebook, 1, entries * length).view(entries, length) * 2.0 - 1
    return index, codebook, unpack(stored.flips, 1, cols) * 2.0 - 1


def decode(stored: Stored) -> Tensor:
    """The matrix `[rows, cols]` that is stored, back in the basis of the inputs."""
    index, codebook, flips = _unpack_stored(stored)
    inner = stored.scale.float()[:, None] * _gather_signs(index, codebook, stored.shape[1]) + stored.mean.float()[:, None]
    return rotate(inner, torch.ones_like(flips)) * flips  # Sylvester's H is its own inverse


def multiply(x: Tensor, stored: Stored) -> Tensor:
    """x Wᵀ for `x [inputs, cols]`: every codeword meets each vector of inputs once, rows only look the sums up."""
    index, codebook, flips = _unpack_stored(stored)
    turned = rotate(x, flips)
    table = split_vectors(turned, stored.length).view(len(x), -1, stored.length) @ codebook.mT  # [inputs, vectors, entries]
    sums = table[:, torch.arange(index.shape[1]), index].sum(2)  # [inputs, rows]
    return sums * stored.scale.float() + turned.sum(1, keepdim=True) * stored.mean.float()
