"""What the released codes of GPTQ, BiLLM, ARB-LLM and STBLLM compute, in plain torch and float64, without the workbench.

Written anew from reading, on GitHub, IST-DASLab/gptq (Apache-2.0), Aaronhuang-778/BiLLM (MIT), ZHITENGLI/ARB-LLM of February
2025 (Apache-2.0) and pprp/STBLLM as it was before its history was cleared (Apache-2.0, says its README). One layer at a time:
`w [rows, cols]` and the second moment `h [cols, cols]` of its inputs. `store` rounds what is stored (scales and means); the
released codes round nothing.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Store = Callable[[Tensor], Tensor]
DAMPING = 0.01
BLOCK = 128
LIMIT = 50  # salient columns of a block are fewer
ITERATIONS = 15


def exact(x: Tensor) -> Tensor:
    """Nothing is rounded, as in the released codes."""
    return x


def half(x: Tensor) -> Tensor:
    """Rounded to fp16, as the workbench stores scales and means."""
    return x.half().double()


def ready(w: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Weights in float64 with dead columns set to zero, and the upper factor of the inverse of the damped moment."""
    w, h = w.double().clone(), h.double().clone()
    dead = h.diagonal() == 0
    h[dead, dead] = 1
    w[:, dead] = 0
    h += DAMPING * h.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)
    return w, torch.linalg.cholesky(torch.linalg.inv(h)).mT


def loss(w: Tensor, values: Tensor, h: Tensor) -> float:
    """tr(E H Eᵀ) / tr(W H Wᵀ)."""
    w, h = w.double(), h.double()
    error = values.double() - w
    return float(((error @ h) * error).sum() / ((w @ h) * w).sum())


def gptq(w: Tensor, h: Tensor, bits: int, group: int, store: Store = exact) -> Tensor:
    """Column by column; a group's grid covers its columns as they were when the batch of 128 began."""
    w, factor = ready(w, h)
    top, rows = 2**bits - 1, len(w)
    done = torch.zeros_like(w)
    for first in range(0, w.shape[1], BLOCK):
        last = min(first + BLOCK, w.shape[1])
        batch, errors = w[:, first:last].clone(), torch.zeros(rows, last - first, dtype=torch.float64)
        for j in range(last - first):
            if (first + j) % group == 0:
                span = w[:, first + j : first + j + group]
                low, high = span.amin(1).clamp(max=0), span.amax(1).clamp(min=0)
                empty = (low == 0) & (high == 0)
                scale = store((torch.where(empty, 1.0, high) - torch.where(empty, -1.0, low)) / top)
                zero = torch.round(-torch.where(empty, -1.0, low) / scale)
            code = (torch.round(batch[:, j] / scale) + zero).clamp(0, top)
            done[:, first + j] = scale * (code - zero)
            errors[:, j] = (batch[:, j] - done[:, first + j]) / factor[first + j, first + j]
            batch[:, j:] -= errors[:, j, None] * factor[first + j, first + j : last]
        w[:, last:] -= errors @ factor[first:last, last:]
    return done


def row_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the masked weights of each row, 0 where there are none; `[rows, 1]`."""
    return (x * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def residual(x: Tensor, mask: Tensor, order: int, store: Store = exact) -> Tensor:
    """Plane upon plane of signs, each with a mean and a mean size of what the planes before it left; 0 outside the mask."""
    rest, mean, values = x * mask, torch.zeros(len(x), 1, dtype=x.dtype), torch.zeros_like(x)
    for _ in range(order):
        shift = row_mean(rest, mask)
        size = row_mean((rest - shift).abs(), mask)
        sign = torch.sign(rest - shift)
        rest, mean, values = rest - shift - size * sign, mean + shift, values + store(size) * sign
    return (values + store(mean)) * mask


def nearest_pair(x: Tensor, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """The two signs whose sum of sizes `one` and `two` is nearest to each weight."""
    pairs = [(a, b) for a in (-1.0, 1.0) for b in (-1.0, 1.0)]
    best = torch.stack([(x - a * one - b * two).abs() for a, b in pairs]).argmin(0)
    signs = torch.tensor(pairs, dtype=x.dtype)
    return signs[best, 0], signs[best, 1]


def alternate(x: Tensor, mask: Tensor, order: int, store: Store = exact, s: Tensor | None = None) -> Tensor:
    """ARB with a mean, one or two planes; with `s [cols, cols]` mean and scales then suit the outputs, signs held (ARB-X)."""
    x = x * mask
    count = mask.sum(1, keepdim=True) + 1e-8
    signs, sizes, mean, rest = [], [], torch.zeros(len(x), 1, dtype=x.dtype), x
    for _ in range(order):
        shift = row_mean(rest, mask)
        signs.append(torch.sign(rest - shift) * mask)
        sizes.append(row_mean((rest - shift).abs(), mask))
        mean, rest = mean + shift, (rest - shift - sizes[-1] * signs[-1]) * mask

    def without(*planes: int) -> Tensor:
        return x - sum((sizes[p] * signs[p] for p in planes), torch.zeros_like(x))

    for _ in range(ITERATIONS):
        mean = mean + row_mean(without(*range(order)) - mean * mask, mask)
        for p in range(order):
            others = [q for q in range(order) if q != p]
            sizes[p] = (signs[p] * (without(*others) - mean * mask)).sum(1, keepdim=True) / count
        chosen = [torch.sign(x - mean)] if order == 1 else nearest_pair(x - mean, *sizes)
        signs = [sign * mask for sign in chosen]
    if s is not None:
        mean, sizes = fit_outputs(x, mask.to(x.dtype), s, signs, sizes)
    return sum((store(size) * sign for size, sign in zip(sizes, signs, strict=True)), store(mean) * mask)


def fit_outputs(x: Tensor, mask: Tensor, s: Tensor, signs: list[Tensor], sizes: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Mean, then each size in turn, as what loses least of the outputs under `s` while all others stay."""

    def product(a: Tensor, b: Tensor) -> Tensor:
        return ((a @ s) * b).sum(1, keepdim=True)

    sizes = list(sizes)
    for _ in range(ITERATIONS):
        mean = product(mask, x - sum(size * sign for size, sign in zip(sizes, signs, strict=True))) / (
            product(mask, mask) + 1e-10
        )
        for p, sign in enumerate(signs):
            others = sum((sizes[q] * signs[q] for q in range(len(signs)) if q != p), torch.zeros_like(x))
            sizes[p] = product(sign, x - mean * mask - others) / (product(sign, sign) + 1e-10)
    return mean, sizes


def row_column(x: Tensor, mask: Tensor, order: int, store: Store = exact) -> Tensor:
    """ARB-RC: planes with a scale for each row and one for each column, solved in turn; one plane keeps its first signs."""
    x = x * mask
    rest, signs, rows, columns = x, [], [], []
    for _ in range(order):
        row = row_mean(rest.abs(), mask)
        ratio = torch.where(row > 0, rest.abs() / row, 0.0)
        rows.append(row)
        columns.append((ratio * mask).sum(0, keepdim=True) / mask.sum(0, keepdim=True).clamp(min=1))
        signs.append(torch.sign(rest) * mask)
        rest = (rest - rows[-1] * columns[-1] * signs[-1]) * mask
    for _ in range(ITERATIONS):
        for p in range(order):
            target = x - sum((rows[q] * columns[q] * signs[q] for q in range(order) if q != p), torch.zeros_like(x))
            lever = columns[p] * signs[p]
            rows[p] = (lever * target).sum(1, keepdim=True) / (lever.square().sum(1, keepdim=True) + 1e-8)
            lever = rows[p] * signs[p]
            columns[p] = (lever * target).sum(0, keepdim=True) / (lever.square().sum(0, keepdim=True) + 1e-8)
        if order == 2:
            signs = [sign * mask for sign in nearest_pair(x, rows[0] * columns[0], rows[1] * columns[1])]
    return sum((store(r) * store(c) * b for r, c, b in zip(rows, columns, signs, strict=True)), torch.zeros_like(x))


def salient_mask(s: Tensor) -> Tensor:
    """The columns of largest sum, as many as lose least of `s` when they and the others have two planes each."""
    ranked = s.abs().sum(0).argsort(descending=True)
    best, chosen = float("inf"), torch.zeros_like(s, dtype=torch.bool)
    for count in range(1, min(LIMIT, s.shape[1])):
        mask = torch.zeros_like(chosen)
        mask[:, ranked[:count]] = True
        error = float((s - residual(s, mask, 2) - residual(s, ~mask, 2)).square().mean())
        if error < best:
            best, chosen = error, mask
    return chosen


def levels(values: Tensor, count: int) -> list[float]:
    """`count` quantiles from 10 % to 90 %."""
    return np.quantile(values.numpy(), np.linspace(0.1, 0.9, count)).tolist()


def two_groups(s: Tensor, mask: Tensor, candidates: list[float], order: int, error: Callable[[Tensor], float]) -> list[Tensor]:
    """The masked weights below and above the candidate that loses least of `s`."""
    best, found = float("inf"), [mask, torch.zeros_like(mask)]
    for level in candidates:
        pair = [mask & (s < level), mask & (s >= level)]
        now = error(residual(s, pair[0], order) + residual(s, pair[1], order))
        if now < best:
            best, found = now, pair
    return found


def three_groups(s: Tensor, salient: Tensor) -> list[Tensor]:
    """The other weights in three groups, the second edge at twice the first (STBLLM)."""
    candidates = levels((s * ~salient).flatten(), 160)
    best, found, apart = float("inf"), [], residual(s, salient, 2)
    for level in candidates:
        if 2 * level > candidates[-1]:
            continue
        groups = [~salient & part for part in (s < level, (s >= level) & (s < 2 * level), s >= 2 * level)]
        now = float((s - apart - sum(residual(s, group, 1) for group in groups)).square().mean())
        if now < best:
            best, found = now, groups
    return found


def by_blocks(w: Tensor, h: Tensor, code: Callable[[Tensor, Tensor, slice], Tensor]) -> Tensor:
    """Block by block: `code(block, saliencies, where)` at once, divide its error by the factor's diagonal, move it on."""
    w, factor = ready(w, h)
    for first in range(0, w.shape[1], BLOCK):
        own = slice(first, min(first + BLOCK, w.shape[1]))
        block = w[:, own].clone()
        values = code(block, (block / factor.diagonal()[own]).square(), own)
        w[:, own] = values
        w[:, own.stop :] -= ((block - values) / factor.diagonal()[own]) @ factor[own, own.stop :]
    return w


def billm(w: Tensor, h: Tensor, store: Store = exact) -> Tensor:
    """BiLLM, all searches on saliencies."""

    def code(block: Tensor, s: Tensor, _: slice) -> Tensor:
        salient = salient_mask(s)
        apart = residual(s, salient, 2)
        candidates = levels((s * ~salient).flatten(), 81)
        groups = two_groups(s, ~salient, candidates, 1, lambda rest: float((s - apart - rest).square().mean()))
        return sum((residual(block, group, 1, store) for group in groups), residual(block, salient, 2, store))

    return by_blocks(w, h, code)


def arb(w: Tensor, h: Tensor, variant: str, bitmap: bool = True, store: Store = exact) -> Tensor:
    """ARB-LLM with row and column scales ("rc") or output-fitted ones ("x"), and groups in salient columns with `bitmap`."""

    def code(block: Tensor, s: Tensor, own: slice) -> Tensor:
        moment = h.double()[own, own]

        def planes(mask: Tensor, order: int) -> Tensor:
            if variant == "rc":
                return row_column(block, mask, order, store)
            return alternate(block, mask, order, store, moment)

        salient = salient_mask(s)
        apart = row_column(s, salient, 2) if variant == "rc" else alternate(s, salient, 2)

        def error(rest: Tensor) -> float:
            lost = s - apart - rest
            return float(lost.square().mean() if variant == "rc" else ((lost @ moment) * lost).sum())

        inner = [salient]
        if bitmap:
            sizes = s[salient]
            candidates = levels(sizes[sizes != 0], 81)
            inner = two_groups(s, salient, candidates, 2, lambda inside: float((s - inside).square().mean()))
        outer = two_groups(s, ~salient, levels((s * ~salient).flatten(), 81), 1, error)
        return sum((planes(group, 1) for group in outer), torch.zeros_like(s)) + sum(planes(group, 2) for group in inner)

    return by_blocks(w, h, code)


def stbllm(w: Tensor, h: Tensor, kept: int, store: Store = exact) -> Tensor:
    """STBLLM: N:8 pruning of the whole matrix first, then BiLLM with three groups, in which pruned weights get values again."""
    size = w.double().abs()
    importance = (size / size.sum(0) + size / size.sum(1, keepdim=True)) * h.double().diagonal() ** 0.25
    pruned = w.double().clone()
    for first in range(0, w.shape[1], 8):
        part = importance[:, first : first + 8]
        least = part.topk(min(8 - kept, part.shape[1]), 1, largest=False).indices
        pruned[:, first : first + 8] = pruned[:, first : first + 8].scatter(1, least, 0.0)

    def code(block: Tensor, s: Tensor, _: slice) -> Tensor:
        salient = salient_mask(s)
        groups = three_groups(s, salient)
        return sum((residual(block, group, 1, store) for group in groups), residual(block, salient, 2, store))

    return by_blocks(pruned, h, code)


METHODS: dict[str, Callable[[Tensor, Tensor, Store], Tensor]] = {
    "gptq:bits=2,group=64,clip=none": lambda w, h, store: gptq(w, h, 2, 64, store),
    "gptq:bits=2,group=32,clip=none": lambda w, h, store: gptq(w, h, 2, 32, store),
    "gptq:bits=3,group=64,clip=none": lambda w, h, store: gptq(w, h, 3, 64, store),
    "billm:released=yes": billm,
    "arb-llm:released=yes": lambda w, h, store: arb(w, h, "rc", True, store),
    "arb-llm:released=yes,bitmap=no": lambda w, h, store: arb(w, h, "rc", False, store),
    "arb-llm:released=yes,variant=x": lambda w, h, store: arb(w, h, "x", True, store),
    "stbllm:released=yes": lambda w, h, store: stbllm(w, h, 4, store),
    "stbllm:released=yes,kept=6": lambda w, h, store: stbllm(w, h, 6, store),
}  # a recipe that must equal the released code, and that code
