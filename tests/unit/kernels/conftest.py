"""Random stored matrices of every format, alone and in trees, for the tests of this folder."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from workbench.kernels.packing import n_of_m, tritpack
from workbench.kernels.packing.bitpack import pack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.parity_code import ParityCode

ROWS, COLS = 5, 13  # no group, vector or byte ends evenly


class Draw:
    """Draws random nodes of one shape from one seed."""

    def __init__(self, rows: int = ROWS, cols: int = COLS, seed: int = 0) -> None:
        self.rows, self.cols = rows, cols
        self.random = torch.Generator().manual_seed(seed)

    def codes(self, bits: int, *shape: int) -> Tensor:
        return torch.randint(0, 1 << bits, shape, generator=self.random)

    def half(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random).half()

    def groups(self, span: int) -> int:
        return math.ceil(self.cols / span)

    def count(self, mask: Tensor | None) -> int:
        return self.rows * self.cols if mask is None else int(mask.sum())

    def dense(self, dtype: torch.dtype = torch.float32, mask: Tensor | None = None) -> Packed:
        weight = self.half(self.rows, self.cols).to(dtype)
        return Packed("dense", self.rows, self.cols, {"weight": weight if mask is None else weight[mask]})

    def uniform(self, bits: int, span: int, *, zero: bool, mask: Tensor | None = None) -> Packed:
        groups = self.groups(span)
        tensors = {"codes": pack(self.codes(bits, self.count(mask)), bits), "scale": self.half(self.rows, groups)}
        if zero:
            tensors["zero"] = pack(self.codes(bits, self.rows, groups), bits)
        return Packed("uniform", self.rows, self.cols, tensors, {"bits": bits, "span": span})

    def planes(self, planes: int, span: int, *, extras: bool, mask: Tensor | None = None) -> Packed:
        tensors = {
            "signs": pack(self.codes(1, planes * self.count(mask)), 1),
            "scale": self.half(planes, self.rows, self.groups(span)),
        }
        if extras:
            tensors["column_scale"] = self.half(planes, self.cols)
            tensors["mean"] = self.half(self.rows, self.groups(span))
        return Packed("planes", self.rows, self.cols, tensors, {"planes": planes, "span": span})

    def ternary(self, planes: int, span: int, *, mask: Tensor | None = None) -> Packed:
        trits = torch.randint(-1, 2, (planes * self.count(mask),), generator=self.random)
        tensors = {"trits": tritpack.pack(trits), "scale": self.half(planes, self.rows, self.groups(span))}
        return Packed("ternary", self.rows, self.cols, tensors, {"planes": planes, "span": span})

    def codebook(self, length: int, entries: int, span: int, *, extras: bool) -> Packed:
        width = max(1, (entries - 1).bit_length())
        index = torch.randint(0, entries, (self.rows, math.ceil(self.cols / length)), generator=self.random)
        tensors = {
            "index": pack(index, width),
            "codebook": pack(self.codes(1, entries, length), 1),
            "scale": self.half(self.rows, self.groups(span)),
        }
        if extras:
            tensors["column_scale"] = self.half(self.cols)
            tensors["mean"] = self.half(self.rows, self.groups(span))
        facts = {"length": length, "entries": entries, "span": span}
        return Packed("binary-codebook", self.rows, self.cols, tensors, facts)

    def vectors(self, length: int, entries: int, span: int) -> Packed:
        packed = self.codebook(length, entries, span, extras=False)
        tensors = {**packed.tensors, "codebook": self.half(entries, length)}
        return Packed("vector-codebook", self.rows, self.cols, tensors, packed.facts)

    def trellis(self, bits: int, length: int, state: int, span: int) -> Packed:
        path = self.codes(bits, self.rows, math.ceil(self.cols / length))
        facts = {"bits": bits, "length": length, "state": state, "span": span}
        tensors = {"path": pack(path, bits), "scale": self.half(self.rows, self.groups(span))}
        return Packed("trellis", self.rows, self.cols, tensors, facts)

    def parity(self, length: int, checks: int, span: int, *, extras: bool) -> Packed:
        stored = int(ParityCode(length, checks).stored(self.rows).sum())
        tensors = {"signs": pack(self.codes(1, stored, self.cols), 1), "scale": self.half(self.rows, self.groups(span))}
        if extras:
            tensors["column_scale"] = self.half(self.cols)
            tensors["mean"] = self.half(self.rows, self.groups(span))
        return Packed("parity-signs", self.rows, self.cols, tensors, {"length": length, "checks": checks, "span": span})

    def bitmap(self) -> Packed:
        owner = self.codes(1, self.rows, self.cols)
        children = (self.planes(1, 4, extras=True, mask=owner == 0), self.uniform(3, 8, zero=True, mask=owner == 1))
        return Packed("masked", self.rows, self.cols, {"map": pack(owner, 1)}, {"map": "bitmap"}, children)

    def trits(self) -> Packed:
        owner = self.codes(1, self.rows, self.cols)
        children = (self.ternary(1, 4, mask=owner == 0), self.ternary(2, 8, mask=owner == 1))
        return Packed("masked", self.rows, self.cols, {"map": pack(owner, 1)}, {"map": "bitmap"}, children)

    def columns(self) -> Packed:
        owner = self.codes(1, self.cols)
        full = owner.expand(self.rows, self.cols)
        children = (self.uniform(2, 4, zero=False, mask=full == 0), self.planes(2, 13, extras=False, mask=full == 1))
        return Packed("masked", self.rows, self.cols, {"map": pack(owner, 1)}, {"map": "columns"}, children)

    def kept(self) -> Packed:
        owner = self.codes(1, self.rows, self.cols)
        children = (self.planes(1, 4, extras=True, mask=owner == 0), self.dense(mask=owner == 1))
        return Packed("masked", self.rows, self.cols, {"map": pack(owner, 1)}, {"map": "bitmap"}, children)

    def chosen(self) -> Packed:
        """3 of every 5 columns; the last group has 3 columns and keeps them all."""
        owner = torch.zeros(self.rows, self.cols, dtype=torch.bool)
        for start in range(0, self.cols, 5):
            width = min(5, self.cols - start)
            order = torch.rand(self.rows, width, generator=self.random).argsort(1)[:, :3] + start
            owner.scatter_(1, order, value=True)
        children = (Packed("zero", self.rows, self.cols), self.planes(1, 4, extras=False, mask=owner))
        facts = {"map": "n-of-m", "n": 3, "m": 5}
        return Packed("masked", self.rows, self.cols, {"map": n_of_m.pack(owner, 3, 5)}, facts, children)

    def low_rank(self, rank: int = 2) -> Packed:
        tensors = {"left": self.half(self.rows, rank), "right": self.half(rank, self.cols)}
        return Packed("low-rank", self.rows, self.cols, tensors)

    def factors(self, rank: int = 3, *, middle: bool) -> Packed:
        tensors = {
            "left": pack(self.codes(1, self.rows, rank), 1),
            "right": pack(self.codes(1, rank, self.cols), 1),
            "row": self.half(self.rows),
            "column": self.half(self.cols),
        }
        if middle:
            tensors["middle"] = self.half(rank)
        return Packed("binary-factors", self.rows, self.cols, tensors, {"rank": rank})

    def sum(self) -> Packed:
        return Packed("sum", self.rows, self.cols, children=(self.bitmap(), self.low_rank()))

    def permuted(self, child: Packed) -> Packed:
        order = torch.randperm(self.cols, generator=self.random)
        width = max(1, (self.cols - 1).bit_length())
        return Packed("permuted", self.rows, self.cols, {"order": pack(order, width)}, children=(child,))

    def scaled(self, child: Packed) -> Packed:
        return Packed("scaled", self.rows, self.cols, {"scale": self.half(self.cols).abs() + 0.5}, children=(child,))

    def hadamard(self, child: Packed) -> Packed:
        return Packed("hadamard", self.rows, self.cols, {"signs": pack(self.codes(1, self.cols), 1)}, children=(child,))

    def rotated(self, child: Packed, factors: tuple[int, int] = (1, COLS), *, extras: bool = True) -> Packed:
        left, right = ((0.5 * torch.randn(n * (n - 1) // 2, generator=self.random)).half() for n in factors)
        tensors = {"left": left, "right": right} if factors[0] > 1 else {"right": right}
        if extras:
            tensors["gain"] = self.half(self.cols).abs() + 0.5
            tensors["signs"] = pack(self.codes(1, self.cols), 1)
        return Packed("rotated", self.rows, self.cols, tensors, {"factors": list(factors)}, (child,))


def rotated_12() -> Packed:
    """A width with two true factors; 13 has none."""
    draw = Draw(cols=12)
    return draw.rotated(draw.uniform(3, 4, zero=True), (3, 4))


def spread_12() -> Packed:
    """The same with the Hadamard transform of width 4 · 3 after it."""
    node = rotated_12()
    return replace(node, facts={**node.facts, "hadamard": True})


EXAMPLES = {
    "dense-fp32": lambda draw: draw.dense(),
    "dense-bf16": lambda draw: draw.dense(torch.bfloat16),
    "uniform-3-symmetric": lambda draw: draw.uniform(3, 4, zero=False),
    "uniform-5-asymmetric": lambda draw: draw.uniform(5, 8, zero=True),
    "uniform-1-whole-row": lambda draw: draw.uniform(1, 13, zero=False),
    "planes-1": lambda draw: draw.planes(1, 13, extras=False),
    "planes-2-extras": lambda draw: draw.planes(2, 4, extras=True),
    "ternary": lambda draw: draw.ternary(1, 13),
    "ternary-2-groups": lambda draw: draw.ternary(2, 4),
    "masked-ternary": lambda draw: draw.trits(),
    "codebook-4-of-6": lambda draw: draw.codebook(4, 6, 13, extras=False),
    "codebook-8-of-16-extras": lambda draw: draw.codebook(8, 16, 8, extras=True),
    "codebook-one-entry": lambda draw: draw.codebook(3, 1, 13, extras=False),
    "vectors-4-of-6": lambda draw: draw.vectors(4, 6, 13),
    "vectors-2-of-16-groups": lambda draw: draw.vectors(2, 16, 4),
    "trellis-4-for-5": lambda draw: draw.trellis(4, 5, 12, 13),
    "trellis-3-for-2-groups": lambda draw: draw.trellis(3, 2, 10, 4),
    "trellis-no-memory": lambda draw: draw.trellis(6, 1, 6, 13),
    "parity-2-of-5": lambda draw: draw.parity(5, 2, 13, extras=False),
    "parity-1-of-2-extras": lambda draw: draw.parity(2, 1, 4, extras=True),
    "masked-bitmap": lambda draw: draw.bitmap(),
    "masked-columns": lambda draw: draw.columns(),
    "masked-kept": lambda draw: draw.kept(),
    "masked-3-of-5": lambda draw: draw.chosen(),
    "zero": lambda draw: Packed("zero", draw.rows, draw.cols),
    "low-rank": lambda draw: draw.low_rank(),
    "factors": lambda draw: draw.factors(middle=False),
    "factors-9-middle": lambda draw: draw.factors(9, middle=True),
    "sum": lambda draw: draw.sum(),
    "permuted": lambda draw: draw.permuted(draw.uniform(4, 4, zero=True)),
    "scaled": lambda draw: draw.scaled(draw.planes(1, 4, extras=True)),
    "hadamard": lambda draw: draw.hadamard(draw.sum()),
    "rotated": lambda draw: draw.rotated(draw.codebook(4, 8, 13, extras=False)),
    "rotated-two-factors": lambda draw: rotated_12(),
    "rotated-hadamard": lambda draw: spread_12(),
    "rotated-rotation-only": lambda draw: draw.rotated(draw.sum(), extras=False),
    "permuted-scaled-hadamard": lambda draw: draw.permuted(draw.scaled(draw.hadamard(draw.codebook(4, 8, 13, extras=True)))),
}


@pytest.fixture
def draw() -> Draw:
    return Draw()


@pytest.fixture(params=list(EXAMPLES), ids=list(EXAMPLES))
def example(request: pytest.FixtureRequest) -> Packed:
    """One stored matrix of each kind."""
    return EXAMPLES[request.param](Draw())
