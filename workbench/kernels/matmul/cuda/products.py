"""Preparation of a stored tree for matmul on a GPU."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.formats.format import find
from workbench.kernels.formats.transforms import Transformed
from workbench.kernels.kernel_mode import Mode, Product
from workbench.kernels.matmul.composed import After, compose_product
from workbench.kernels.matmul.cuda import code_layout
from workbench.kernels.matmul.cuda.code_layout import Resident
from workbench.kernels.packing.packed import Packed

FEW_INPUTS = 4  # looked up one by one; more are multiplied together, as decoding is then shared
DECODED_ROWS, TILE_ROWS, TILE_INPUTS, TILE_COLS = 512, 64, 64, 64
LEAST_INPUTS = 16  # that tensor cores take; fewer are filled up
PROGRAMS = 528  # that fill a large GPU: four for each of 132 multiprocessors


@dataclass(frozen=True)
class Coded:
    """Signs, codes or indices on the device."""

    matrix: Resident

    @property
    def bytes(self) -> int:
        """Bytes of the resident form."""
        return self.matrix.bytes

    def __call__(self, x: Tensor) -> Tensor:
        """x Wᵀ for `x [n, cols]`, in float32."""
        m = self.matrix
        scaled = x[:, None] if not m.column.numel() else (x[:, None] * m.column).to(x.dtype)  # [n, planes or 1, cols]
        few = len(x) <= FEW_INPUTS and 0 < len(m.words) <= code_layout.FEW_ENTRIES
        y = self.looked_up(scaled) if few else self.multiplied(scaled)
        y = y.sum(0) * m.factor
        return y if not m.mean.numel() else y + sum_groups(x, m) @ m.mean.mT.float()

    def looked_up(self, x: Tensor) -> Tensor:
        """Sums of every segment's inputs under every pattern, chosen by signs or indices; `x [n, each, cols]`."""
        from workbench.kernels.matmul.cuda import triton_kernels

        m, inputs, scalings = self.matrix, x.shape[0], x.shape[1]
        planes, segments, rows = m.codes.shape
        patterns = (m.words[:, None] >> torch.arange(m.length, device=x.device) & 1).float() * 2 - 1
        pieces = torch.nn.functional.pad(x.float(), (0, segments * m.length - m.cols)).view(inputs * scalings, segments, m.length)
        size = 1 << max(1, (len(patterns) - 1).bit_length())
        table = torch.nn.functional.pad(pieces @ patterns.mT, (0, size - len(patterns)))
        groups = m.scale.shape[1]
        group_segments = segments if groups == 1 else m.span // m.length
        together = math.gcd(group_segments, code_layout.SEGMENT_MULTIPLE)
        blocks, total = -(-rows // DECODED_ROWS), planes * segments
        share = together * max(1, -(-total * blocks * inputs // (PROGRAMS * together)))
        splits = -(-total // share)
        y = torch.empty(splits, inputs, rows, device=x.device)
        triton_kernels.look_up[(blocks, splits, inputs)](
            table, m.codes, m.scale, y, inputs, rows, segments, total, groups, group_segments, scalings, share, size,
            DECODED_ROWS, together,
            enable_fp_fusion=True,
        )  # fmt: skip
        return y

    def multiplied(self, x: Tensor) -> Tensor:
        """Tiles decoded and multiplied by tensor cores; `x [n, each, cols]`."""
        from workbench.kernels.matmul.cuda import triton_kernels

        m, inputs, scalings = self.matrix, x.shape[0], x.shape[1]
        planes, segments, rows = m.codes.shape
        groups = m.scale.shape[1]
        wide = TILE_COLS if groups == 1 else math.gcd(m.span, TILE_COLS)
        tall = min(TILE_INPUTS, max(LEAST_INPUTS, 1 << (inputs - 1).bit_length()))
        tiles = -(-m.cols // wide)
        blocks, heights = -(-rows // TILE_ROWS), -(-inputs // tall)
        share = max(1, planes * tiles * blocks * heights // PROGRAMS)
        splits = -(-planes * tiles // share)
        y = torch.empty(splits, inputs, rows, device=x.device)
        triton_kernels.multiply[(blocks, heights, splits)](
            x.contiguous(), m.codes, m.words, m.scale, m.zero, y, inputs, rows, m.cols, segments, groups, m.span, scalings, tiles,
            planes * tiles, share, m.form, m.length, m.bits, tall, TILE_ROWS, wide, enable_fp_fusion=True,
        )  # fmt: skip
        return y


def sum_groups(x: Tensor, m: Resident) -> Tensor:
    """The sums of each group's inputs, float32 `[n, groups]`."""
    full = torch.nn.functional.pad(x.float(), (0, -m.cols % m.span))
    return full.view(len(x), -1, m.span).sum(-1)


def prepare(packed: Packed, mode: Mode) -> Product:
    """The product with a stored tree."""
    if issubclass(kind := find(packed), Transformed):
        return After(lambda x: kind.input(x, packed), prepare(packed.children[0], mode), 0)
    product = compose_product(packed, lambda part: prepare(part, mode))
    return product or Coded(code_layout.make_resident(packed, keep_indices=mode.cache == "none"))
