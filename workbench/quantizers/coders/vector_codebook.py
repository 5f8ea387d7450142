"""Coder `vector-codebook`: vectors of neighbouring weights replaced by the nearest of a few real-valued codewords."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.kernels.formats.codebook import compute_index_width
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.search.vector_search import find_nearest_vectors
from workbench.part_settings import make_group_setting
from workbench.quantizers.coders.binary_codebook import CodebookScales
from workbench.quantizers.coders.fitting import binary_kmeans, sign_planes, vector_kmeans
from workbench.quantizers.coders.fitting.column_groups import compute_group_span
from workbench.quantizers.contract import Codebooks, Coder, Fit
from workbench.quantizers.storage_rounding import round_to_fp16
from workbench.recipe import setting
from workbench.registry import register

SETTLE = 5  # sweeps of scales and codewords in turn, with the codebook fixed


@register("coder", "vector-codebook")
@dataclass(frozen=True)
class VectorCodebook(Coder[Codebooks, CodebookScales]):
    """value = scale · C[index] with a codebook of `entries` vectors of `length` weights, by k-means on weights over their size.

    Vector quantization as in GPTVQ (arXiv 2402.15319) and AQLM with one codebook (2401.06118), which hold a codebook for each
    part of a matrix; here a scope shares one in fp16, and rows (or groups of columns) have scales. `length` 1 is Lloyd's
    optimal scalar quantizer. `rescale` solves the scales again for the final codes, under the second moment where there is one.
    """

    full_mask_only: ClassVar[bool] = True
    length: int = setting(10, "weights per codeword", low=1, high=24)
    entries: int = setting(256, "number of codewords; the index takes log2 of it bits", low=2, high=65536)
    scope: str = setting("model", "which layers share a codebook", choices=("matrix", "projection", "model"))
    group: int = make_group_setting(0)
    rescale: bool = setting(True, "refit the scales to the final codes")

    @property
    def nominal_bits(self) -> float:
        """Bits of an index over the weights it stands for."""
        return compute_index_width(self.entries) / self.length

    @property
    def sharing(self) -> str:
        """As set."""
        return self.scope

    def span(self, cols: int) -> int:
        """One group, or the row."""
        return compute_group_span(self.group, cols, self.length)

    def step(self, cols: int) -> int:
        """One codeword."""
        return self.length

    def prepare(self, weights: Sequence[Tensor]) -> Codebooks:
        """A codebook rounded to fp16, trained on a sample of the scope's vectors."""
        sample = binary_kmeans.sample_vectors((self.shapes(w) for w in weights), len(weights))
        book, losses = vector_kmeans.train(sample, self.entries)
        return Codebooks(round_to_fp16(book), binary_kmeans.stack_round_losses([losses]))

    def shapes(self, w: Tensor) -> Tensor:
        """Vectors over the size of their row and group; a vector past the last whole one only where there is no other."""
        span, pieces = self.span(w.shape[1]), []
        for start in range(0, w.shape[1], span):
            piece = w[:, start : start + span]
            size = compute_row_rms(piece)
            piece = torch.where(size > 0, piece / size, 0.0)
            full_columns = piece.shape[1] // self.length * self.length or piece.shape[1]
            pieces.append(binary_kmeans.split_vectors(piece[:, :full_columns], self.length))
        return torch.cat(pieces)

    def fit(self, w: Tensor, mask: Tensor, shared: Codebooks, moment: Tensor | None) -> Fit[CodebookScales]:
        """A scale for each row, settled on codewords."""
        everywhere = slice(0, w.shape[1])

        def choose(w: Tensor, params: CodebookScales) -> Tensor:
            return self.words(self.encode(w, params, everywhere), params, w.shape[1])

        start = CodebookScales(round_to_fp16(compute_row_rms(w)).mT, codebook=shared.codebook)
        return sign_planes.alternate(w, mask, start, SETTLE, choose)

    def encode(self, w: Tensor, params: CodebookScales, columns: slice) -> Tensor:
        """The index of the nearest codeword, `[rows, ceil(k/length)]`; the last one of a row looks at real columns only."""
        book, scale = params.codebook, params.scale.mT
        full_columns = w.shape[1] // self.length * self.length
        y = w[:, :full_columns].reshape(-1, self.length)
        codes = find_nearest_vectors(y, scale.repeat_interleave(full_columns // self.length, 0), book).view(len(w), -1)
        if full_columns == w.shape[1]:
            return codes
        rest = w[:, full_columns:]
        return torch.cat([codes, find_nearest_vectors(rest, scale, book[:, : rest.shape[1]])[:, None]], 1)

    def encode_under(self, metric: Tensor, w: Tensor, params: CodebookScales, columns: slice) -> Tensor:
        """The index of the codeword that costs least."""
        return vector_kmeans.find_nearest_under_metric(metric, w, params.scale.mT, params.codebook)

    def words(self, codes: Tensor, params: CodebookScales, cols: int) -> Tensor:
        """C[index], `[1, rows, cols]`."""
        return params.codebook[codes].reshape(len(codes), -1)[None, :, :cols]

    def decode(self, codes: Tensor, params: CodebookScales, columns: slice) -> Tensor:
        """scale · C[index]."""
        return sign_planes.sum_planes(self.words(codes, params, columns.stop - columns.start), params, columns)

    def refit(
        self, target: Tensor, codes: Tensor, params: list[CodebookScales], mask: Tensor, moment: Tensor | None
    ) -> list[CodebookScales]:
        """Scales by least squares, unless `rescale` is off."""
        if not self.rescale:
            return params
        cols = mask.shape[1]
        return sign_planes.refit(target, self.words(codes, params[0], cols), params, self.span(cols), mask, moment)

    def pack(self, codes: Tensor, params: list[CodebookScales], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """Format `vector-codebook`; the codebook is marked as shared unless every matrix has its own."""
        tensors = {
            "index": bitpack.pack(codes, compute_index_width(self.entries)),
            "codebook": params[0].codebook.half(),
            "scale": sign_planes.pack_scale_tensors(params)["scale"][0],
        }
        facts = {"length": self.length, "entries": self.entries, "span": self.span(shape[1])}
        shared = {} if self.scope == "matrix" else {"codebook": ("codebook", 1)}
        return Packed("vector-codebook", *shape, tensors, facts, shared=shared)


def compute_row_rms(w: Tensor) -> Tensor:
    """The size of each row, `[rows, 1]`."""
    largest = w.abs().amax(1, keepdim=True)  # so that squares stay in range
    return largest * torch.where(largest > 0, w / largest, 0.0).square().mean(1, keepdim=True).sqrt()
