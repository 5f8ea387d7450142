"""Coder `codebook-planes`: a sum of sign planes, some coded with codebooks and some stored as signs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.errors import RecipeError
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.search import codeword_search
from workbench.quantizers.coders.binary_codebook import BinaryCodebook, CodebookScales
from workbench.quantizers.coders.fitting import binary_kmeans, sign_planes, vector_kmeans
from workbench.quantizers.contract import Codebooks
from workbench.recipe import setting
from workbench.registry import register

ROUNDS = 2  # over the planes, each chosen for what the others leave


@register("coder", "codebook-planes")
@dataclass(frozen=True)
class CodebookPlanes(BinaryCodebook):
    """value = Σ_p scale_p · column_scale_p · sign_p + mean, with a codebook for each of the first `indexed` planes.

    Two magnitudes α₁ < α₂ with a map g ∈ {±1} are two planes: α_g s = ½(α₁+α₂) s + ½(α₂−α₁) (s·g). So a plane stored as it is
    is the map of two magnitude groups, two such planes the map of four, and a map that has a codebook costs less than its bit.
    """

    planes: int = setting(2, "sign planes", low=2, high=3)
    indexed: int = setting(2, "number of planes with a codebook; the others take one bit per weight", low=1, high=3)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.indexed > self.planes:
            counts = f"{self.indexed} of {self.planes} planes"
            raise RecipeError(f"coder 'codebook-planes': {counts} cannot have a codebook; use indexed={self.planes} at most.")

    @property
    def nominal_bits(self) -> float:
        """Bits of the indices over the signs they stand for; planes without a codebook are maps, which papers do not count."""
        return self.indexed * super().nominal_bits

    @property
    def count(self) -> int:
        """As set."""
        return self.planes

    def prepare(self, weights: Sequence[Tensor]) -> Codebooks:
        """`indexed` codebooks of ±1, each trained on what the planes before it leave.

        `weights` is walked once for each codebook.
        """
        books: list[Tensor] = []
        losses: list[tuple[float, ...]] = []
        for _ in range(self.indexed):
            book, plane_errors = self.train((self.left(w, books) for w in weights), len(weights))
            books.append(book)
            losses.append(plane_errors)
        return Codebooks(torch.stack(books), binary_kmeans.stack_round_losses(losses))

    def left(self, w: Tensor, books: list[Tensor]) -> Tensor:
        """What the next plane's codewords should point along, as vectors, when the planes before it have these codebooks."""
        span, pieces = self.span(w.shape[1]), []
        for start in range(0, w.shape[1], span):
            piece = w[:, start : start + span]
            params, everywhere = self.binarize(piece), slice(0, piece.shape[1])
            size, rest = sign_planes.compute_magnitudes(params, everywhere), sign_planes.subtract_mean(piece, params)
            for p, book in enumerate(books):
                rest = rest - size[p] * self.lookup(self.nearest(size[p] * rest, book), book, piece.shape[1])
            pieces.append(size[len(books)] * rest)
        return binary_kmeans.split_vectors(torch.cat(pieces, 1), self.length)

    def lookup(self, codes: Tensor, book: Tensor | None, cols: int) -> Tensor:
        """±1 `[rows, cols]` for one plane's codes `[rows, vectors]`: numbers of codewords, or the patterns themselves."""
        words = codeword_search.decode_signs(codes.reshape(-1), self.length) if book is None else book[codes]
        return words.reshape(len(codes), -1)[:, :cols]

    def encode(self, w: Tensor, params: CodebookScales, columns: slice) -> Tensor:
        """One code for each vector and plane, `[rows, ceil(k/length), planes]`, plane by plane, then once more."""
        return self.in_turn(w, params, columns, None)

    def encode_under(self, metric: Tensor, w: Tensor, params: CodebookScales, columns: slice) -> Tensor:
        """The same for the cost that `metric` says, but a plane without a codebook takes the nearest signs."""
        return self.in_turn(w, params, columns, None if self.assignment == "hamming" else metric)

    def in_turn(self, w: Tensor, params: CodebookScales, columns: slice, metric: Tensor | None) -> Tensor:
        """Each plane's codes for what the others leave."""
        target, size = sign_planes.subtract_mean(w, params), sign_planes.compute_magnitudes(params, columns)
        values, codes = torch.zeros(self.planes, *w.shape), [torch.empty(0)] * self.planes
        for _ in range(ROUNDS):
            for p, book in enumerate(self.books(params)):
                rest = target - values.sum(0) + values[p]
                if book is None:
                    codes[p] = codeword_search.encode_signs(binary_kmeans.split_vectors(size[p] * rest, self.length)).view(
                        len(w), -1
                    )
                elif metric is None:
                    codes[p] = self.nearest(size[p] * rest, book)
                else:
                    column = None if params.column_scale is None else params.column_scale[p, columns]
                    codes[p] = vector_kmeans.find_nearest_under_metric(metric, rest, params.scale[p][:, None], book, column)
                values[p] = size[p] * self.lookup(codes[p], book, w.shape[1])
        return torch.stack(codes, -1)

    def books(self, params: CodebookScales) -> list[Tensor | None]:
        """Each plane's codebook, None for a plane without."""
        return [*params.codebook, *[None] * (self.planes - self.indexed)]

    def signs(self, codes: Tensor, params: CodebookScales, cols: int) -> Tensor:
        """±1 `[planes, rows, cols]`."""
        return torch.stack([self.lookup(codes[..., p], book, cols) for p, book in enumerate(self.books(params))])

    def decode(self, codes: Tensor, params: CodebookScales, columns: slice) -> Tensor:
        """The sum of the planes, added in the order of the stored form: the mean belongs to the first."""
        signs = self.signs(codes, params, columns.stop - columns.start)
        first, *others = sign_planes.compute_magnitudes(params, columns) * signs
        if params.mean is not None:
            first = first + params.mean[:, None]
        for plane in others:
            first = first + plane
        return first

    def pack(self, codes: Tensor, params: list[CodebookScales], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """Format `sum` of `binary-codebook` and `planes`."""
        scales = sign_planes.pack_scale_tensors(params)
        children = []
        for p, book in enumerate(self.books(params[0])):
            plane_scales = {name: tensor[p : p + 1] for name, tensor in scales.items() if name != "mean"}
            if "mean" in scales and p == 0:
                plane_scales["mean"] = scales["mean"]
            if book is None:
                bits = self.lookup(codes[..., p], None, shape[1]) > 0
                facts = {"planes": 1, "span": self.span(shape[1])}
                children.append(Packed("planes", *shape, {"signs": bitpack.pack(bits, 1), **plane_scales}, facts))
            else:
                children.append(self.packed_plane(codes[..., p], book, plane_scales, shape))
        return Packed("sum", *shape, children=tuple(children))
