"""Coder `binary-codebook`: below one bit per weight, by an index of the nearest codeword for each sign vector of a row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import RecipeError
from workbench.kernels.formats.codebook import compute_index_width
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.part_settings import SCALES, make_group_setting
from workbench.quantizers.coders.fitting import binary_kmeans, sign_planes, vector_kmeans
from workbench.quantizers.coders.fitting.column_groups import compute_group_span
from workbench.quantizers.coders.fitting.sign_planes import PlaneScales
from workbench.quantizers.coders.sign import SCALES_PER_COLUMN, SCALES_PER_GROUP
from workbench.quantizers.contract import Codebooks, Coder, Fit
from workbench.recipe import setting
from workbench.registry import register

SETTLE = 5  # sweeps of scales and codewords in turn, with the codebook fixed


@dataclass(frozen=True, kw_only=True)
class CodebookScales(PlaneScales):
    """Scales of one span, and what its scope shares: `codebook [entries, length]`, or `[planes, entries, length]`."""

    codebook: Tensor


@register("coder", "binary-codebook")
@dataclass(frozen=True)
class BinaryCodebook(Coder[Codebooks, CodebookScales]):
    """Vectors of `length` signs replaced by the nearest of `entries` codewords, times row (or group, column) scales.

    The binary codebook of BTC-LLM (arXiv 2506.12040, no released code): signs by ARB, patterns clustered by Hamming
    distance. Assignment "magnitude" is this project's: a wrong sign costs what its weight is large, which takes a fifth off
    the error at the same bits; where errors move on, a codeword costs what they leave behind. `rescale` solves the scales again
    for the final codewords, under the second moment where there is one.
    """

    full_mask_only: ClassVar[bool] = True
    length: int = setting(10, "signs per codeword", low=2, high=24)
    entries: int = setting(256, "number of codewords; the index takes log2 of it bits", low=2, high=65536)
    assignment: str = setting(
        "magnitude", "cost of a flipped sign: the weight's magnitude, or 1", choices=("magnitude", "hamming")
    )
    scope: str = setting("projection", "which layers share a codebook", choices=("matrix", "projection", "model"))
    scales: str = setting("row", "granularity of the scales", choices=SCALES)
    group: int = make_group_setting(120)
    mean: bool = setting(False, "also store a mean with each scale")
    sweeps: int = setting(15, "alternating sweeps over scales and signs before clustering", low=0, high=100)
    rescale: bool = setting(True, "refit the scales to the final signs")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.entries > 1 << self.length:
            raise RecipeError(
                f"coder 'binary-codebook': {self.entries} codewords of {self.length} signs; "
                f"only {1 << self.length} different codewords exist; use at most that many."
            )

    @property
    def nominal_bits(self) -> float:
        """Bits of an index over the signs it stands for."""
        return compute_index_width(self.entries) / self.length

    @property
    def sharing(self) -> str:
        """As set."""
        return self.scope

    @property
    def count(self) -> int:
        """Sign planes."""
        return 1

    def span(self, cols: int) -> int:
        """One group, or the row."""
        return compute_group_span(self.group if self.scales in SCALES_PER_GROUP else 0, cols, self.length)

    def step(self, cols: int) -> int:
        """One codeword."""
        return self.length

    def prepare(self, weights: Sequence[Tensor]) -> Codebooks:
        """A codebook of ±1, trained on all weights of the scope."""
        book, losses = self.train((self.directions(w) for w in weights), len(weights))
        return Codebooks(book, binary_kmeans.stack_round_losses([losses]))

    def train(self, matrices: Iterable[Tensor], count: int) -> binary_kmeans.Trained:
        """A codebook for the vectors of `count` matrices: by Hamming distance on all of them, by magnitude on a sample."""
        if self.assignment == "hamming":
            counts = torch.zeros(1 << self.length, dtype=torch.int64)
            for y in matrices:
                counts += binary_kmeans.count_patterns(y)
            return binary_kmeans.train_hamming(counts, self.entries, self.length)
        return binary_kmeans.train_magnitude(binary_kmeans.sample_vectors(matrices, count), self.entries)

    def directions(self, w: Tensor) -> Tensor:
        """What codewords should point along: scale · column_scale · (w − mean) after plain binarization, as vectors."""
        span, pieces = self.span(w.shape[1]), []
        for start in range(0, w.shape[1], span):
            piece = w[:, start : start + span]
            params = self.binarize(piece)
            pieces.append(_compute_pull(piece, params, slice(0, piece.shape[1])))
        return binary_kmeans.split_vectors(torch.cat(pieces, 1), self.length)

    def binarize(self, w: Tensor) -> PlaneScales:
        """Scales of one span for plain signs."""
        every = torch.ones_like(w, dtype=torch.bool)
        start = sign_planes.fit_greedy_planes(w, every, self.count, self.mean, self.scales in SCALES_PER_COLUMN, every)
        return sign_planes.alternate(w, every, start, self.sweeps, sign_planes.choose_nearest_signs).params

    def fit(self, w: Tensor, mask: Tensor, shared: Codebooks, moment: Tensor | None) -> Fit[CodebookScales]:
        """Scales, and as set means and scales of columns: those of plain signs first, then settled on codewords."""
        everywhere = slice(0, w.shape[1])

        def choose(w: Tensor, params: CodebookScales) -> Tensor:
            return self.signs(self.encode(w, params, everywhere), params, w.shape[1])

        plain = self.binarize(w)
        start = CodebookScales(plain.scale, plain.mean, plain.column_scale, codebook=shared.codebook)
        return sign_planes.alternate(w, mask, start, SETTLE, choose)

    def encode(self, w: Tensor, params: CodebookScales, columns: slice) -> Tensor:
        """The index of the nearest codeword, `[rows, ceil(k/length)]`."""
        return self.nearest(_compute_pull(w, params, columns), params.codebook)

    def encode_under(self, metric: Tensor, w: Tensor, params: CodebookScales, columns: slice) -> Tensor:
        """The index of the codeword that costs least; by Hamming distance the nearest all the same."""
        if self.assignment == "hamming":
            return self.encode(w, params, columns)
        column = None if params.column_scale is None else params.column_scale[0, columns]
        target = sign_planes.subtract_mean(w, params)
        return vector_kmeans.find_nearest_under_metric(metric, target, params.scale.mT, params.codebook, column)

    def nearest(self, y: Tensor, book: Tensor) -> Tensor:
        """The codeword nearest to each vector of `y [rows, k]`, by the set distance."""
        if self.assignment == "hamming":
            y = torch.where(y >= 0, 1.0, -1.0)
        return binary_kmeans.find_nearest_codewords(binary_kmeans.split_vectors(y, self.length), book).view(len(y), -1)

    def signs(self, codes: Tensor, params: CodebookScales, cols: int) -> Tensor:
        """±1 `[1, rows, cols]`."""
        return params.codebook[codes].reshape(len(codes), -1)[None, :, :cols]

    def decode(self, codes: Tensor, params: CodebookScales, columns: slice) -> Tensor:
        """scale · column_scale · codeword + mean."""
        return sign_planes.sum_planes(self.signs(codes, params, columns.stop - columns.start), params, columns)

    def refit(
        self, target: Tensor, codes: Tensor, params: list[CodebookScales], mask: Tensor, moment: Tensor | None
    ) -> list[CodebookScales]:
        """Scales and means by least squares, unless `rescale` is off."""
        if not self.rescale:
            return params
        cols = mask.shape[1]
        return sign_planes.refit(target, self.signs(codes, params[0], cols), params, self.span(cols), mask, moment)

    def pack(self, codes: Tensor, params: list[CodebookScales], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """Format `binary-codebook`; the codebook is marked as shared unless every matrix has its own."""
        return self.packed_plane(codes, params[0].codebook, sign_planes.pack_scale_tensors(params), shape)

    def packed_plane(self, codes: Tensor, book: Tensor, scales: dict[str, Tensor], shape: tuple[int, int]) -> Packed:
        """One plane of codewords; `scales` as `sign_planes.pack_scale_tensors` gives them for it."""
        tensors = {
            "index": bitpack.pack(codes, compute_index_width(self.entries)),
            "codebook": bitpack.pack(book > 0, 1),
            **{name: tensor if name == "mean" else tensor[0] for name, tensor in scales.items()},
        }
        facts = {"length": self.length, "entries": self.entries, "span": self.span(shape[1])}
        shared = {} if self.scope == "matrix" else {"codebook": ("codebook", 1)}
        return Packed("binary-codebook", *shape, tensors, facts, shared=shared)


def _compute_pull(w: Tensor, params: PlaneScales, columns: slice) -> Tensor:
    """scale · column_scale · (w − mean) of a single plane."""
    return sign_planes.compute_magnitudes(params, columns)[0] * sign_planes.subtract_mean(w, params)
