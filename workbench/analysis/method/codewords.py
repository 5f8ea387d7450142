"""The codewords of a stored layer: the use, positions and error of each.

Errors are those of the finished layer in the basis that is coded, cut into the vectors that an index stands for; where several
codebooks add up, a vector's error is what all of them together leave.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.method.coded_basis import extract_coded_basis
from workbench.analysis.method.sign_patterns import BOOKS, entropy, format_pattern
from workbench.errors import WorkbenchError
from workbench.kernels import formats
from workbench.kernels.formats import codebook
from workbench.kernels.formats.codebook import compute_index_width
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.search import codeword_search

IMAGE_ROWS, IMAGE_COLS = 64, 128  # cells of the picture of positions
NEAREST_UP_TO = 4096  # codewords among which every nearest neighbour is looked for


@dataclass(frozen=True)
class Book:
    """One codebook of a layer: `index [rows, vectors]` and `words [entries, length]`, ±1 where `binary`, else values."""

    path: str
    node: Packed
    index: Tensor
    words: Tensor
    binary: bool

    @property
    def entries(self) -> int:
        """Codewords, used or not."""
        return len(self.words)

    @property
    def length(self) -> int:
        """Weights that an index stands for."""
        return self.words.shape[1]

    @property
    def width(self) -> int:
        """Bits of an index."""
        return compute_index_width(self.entries)

    @property
    def counts(self) -> Tensor:
        """How many vectors of this layer use each codeword, `[entries]`."""
        return torch.bincount(self.index.reshape(-1), minlength=self.entries)

    def check(self, codes: Sequence[int]) -> None:
        """Raise WorkbenchError for a code that this book does not have."""
        if wrong := [code for code in codes if not 0 <= code < self.entries]:
            raise WorkbenchError(f"this codebook has no code {wrong[0]}; use 0 to {self.entries - 1}.")


def list_codebooks(packed: Packed) -> list[Book]:
    """Every codebook of a stored layer, in order."""
    return [read_book(path, node) for path, node in packed.walk() if node.format in BOOKS]


def read_book(path: str, node: Packed) -> Book:
    """Index and codewords of one node."""
    binary, entries = node.format == "binary-codebook", node.facts["entries"]
    words = codebook.unpack_codewords(node) if binary else node.tensors["codebook"].float()
    segments = -(-node.cols // node.facts["length"])
    index = bitpack.unpack(node.tensors["index"], compute_index_width(entries), node.rows * segments)
    return Book(path, node, index.view(node.rows, segments).long(), words, binary)


def _sum_vectors(matrix: Tensor, length: int) -> Tensor:
    """Sums over vectors of `length` neighbouring columns, the last one shorter: `[rows, vectors]`."""
    return torch.nn.functional.pad(matrix, (0, -matrix.shape[1] % length)).unflatten(1, (-1, length)).sum(-1)


def compute_vector_errors(packed: Packed, weight: Tensor, book: Book) -> tuple[Tensor, Tensor]:
    """Squared error and energy of every vector of the layer with original `weight [rows, cols]`, `[rows, vectors]` each."""
    node, target, _ = extract_coded_basis(packed, weight)
    error = (formats.decode(node) - target).square()
    return _sum_vectors(error, book.length), _sum_vectors(target.square(), book.length)


def tabulate_codewords(book: Book, errors: Tensor, energy: Tensor) -> pd.DataFrame:
    """One row a codeword: codeword, pattern, count, share, error_share, served (relative error of its weights), nearest, gap.

    `nearest` is the codeword most like it and `gap` how many signs, or what distance, lie between them; both are missing where
    there are more than 4,096. `served` is missing for dead codewords.
    """
    counts, flat = book.counts, book.index.reshape(-1)
    code_error = torch.zeros(book.entries).scatter_add_(0, flat, errors.reshape(-1))
    size = torch.zeros(book.entries).scatter_add_(0, flat, energy.reshape(-1))
    nearest, apart = find_nearest_codewords(book)
    return pd.DataFrame(
        {
            "codeword": range(book.entries),
            "pattern": _format_codewords(book),
            "count": counts.tolist(),
            "share": (counts / counts.sum()).tolist(),
            "error_share": (code_error / code_error.sum().clamp(min=1e-30)).tolist(),
            "served": torch.where(counts > 0, code_error / size.clamp(min=1e-30), torch.nan).tolist(),
            "nearest": nearest,
            "gap": apart,
        }
    )


def _format_codewords(book: Book) -> list[str]:
    """Every codeword in writing: signs, or values with two digits."""
    if book.binary:
        return [format_pattern(word, book.length) for word in codeword_search.encode_signs(book.words).tolist()]
    return [" ".join(f"{value:.2g}" for value in word) for word in book.words.tolist()]


def find_nearest_codewords(book: Book) -> tuple[list[float], list[float]]:
    """For every codeword the nearest other one, and how far it is."""
    if not 1 < book.entries <= NEAREST_UP_TO:
        return [float("nan")] * book.entries, [float("nan")] * book.entries
    distance = torch.cdist(book.words, book.words).fill_diagonal_(torch.inf)
    least, which = distance.min(1)
    apart = least.square() / 4 if book.binary else least  # two signs that differ are 2 apart
    return which.double().tolist(), [round(value, 4) for value in apart.tolist()]


@dataclass(frozen=True)
class Positions:
    """Where codes sit: `values [height, width]` is the share of vectors in each cell that use one of them.

    A cell covers `row_step` rows and `step` vectors of `length` columns.
    """

    values: np.ndarray
    row_step: int
    step: int
    length: int


def locate_codewords(book: Book, codes: Sequence[int]) -> Positions:
    """The chosen codes on the matrix, from afar."""
    book.check(codes)
    hit = torch.isin(book.index, torch.tensor(list(codes), dtype=torch.long)).float()
    row_step, step = -(-hit.shape[0] // IMAGE_ROWS), -(-hit.shape[1] // IMAGE_COLS)
    pooled = torch.nn.functional.avg_pool2d(hit[None, None], (row_step, step), ceil_mode=True, count_include_pad=False)
    return Positions(pooled[0, 0].numpy(), row_step, step, book.length)


@dataclass(frozen=True)
class IndexRaster:
    """A window of an index in cells of `row_step × col_step` vectors: the code of one vector of each, and where it is.

    That is the first vector with one of the chosen codes where there is any (`chosen`), else the first of the cell: codes are
    names, and no other number stands for several of them.
    """

    codes: np.ndarray
    chosen: np.ndarray
    rows: np.ndarray
    cols: np.ndarray
    row_step: int
    col_step: int


def rasterize_index(
    book: Book, window: tuple[int, int, int, int], codes: Sequence[int] = (), *, height: int = 256, width: int = 384
) -> IndexRaster:
    """Which code each vector uses, in at most `height × width` cells; `window` is first row, last row, first and last vector."""
    book.check(codes)
    top, bottom, left, right = window
    index = book.index[top : bottom + 1, left : right + 1].numpy()
    row_step, col_step = -(-index.shape[0] // height), -(-index.shape[1] // width)
    firsts = np.ix_(np.arange(0, index.shape[0], row_step), np.arange(0, index.shape[1], col_step))
    rows, cols = (np.broadcast_to(part, (len(firsts[0]), firsts[1].shape[1])).copy() for part in firsts)
    chosen = np.zeros(rows.shape, dtype=bool)
    hits = np.argwhere(np.isin(index, list(codes)))[::-1]  # of those in one cell the first is written last
    cells = hits[:, 0] // row_step, hits[:, 1] // col_step
    rows[cells], cols[cells], chosen[cells] = hits[:, 0], hits[:, 1], True
    kind = np.uint16 if max(bottom, right) < 1 << 16 else np.uint32
    codes_shown = index[rows, cols].astype(np.int32)
    return IndexRaster(codes_shown, chosen, (rows + top).astype(kind), (cols + left).astype(kind), row_step, col_step)


def tabulate_codes_in_window(book: Book, window: tuple[int, int, int, int], count: int = 20) -> pd.DataFrame:
    """The codes that most vectors of a window use, most first: codeword, count, share (of the window's vectors)."""
    top, bottom, left, right = window
    part = book.index[top : bottom + 1, left : right + 1]
    counts = torch.bincount(part.reshape(-1), minlength=book.entries)
    order = counts.argsort(descending=True, stable=True)[:count]
    order = order[counts[order] > 0]
    return pd.DataFrame(
        {"codeword": order.tolist(), "count": counts[order].tolist(), "share": (counts[order] / part.numel()).tolist()}
    )


def tabulate_error_profile(book: Book, codes: Sequence[int], errors: Tensor, energy: Tensor) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How the weights under chosen codes are served beside all others, and the distribution behind it.

    First a row each for "chosen" and "others": which, count (vectors), share, error_share, served. Then the shares of both by the
    relative error of a vector: from, to, chosen, others.
    """
    book.check(codes)
    hit = torch.isin(book.index, torch.tensor(list(codes), dtype=torch.long))
    relative = (errors / energy.clamp(min=1e-30)).clamp(max=2)
    edges = torch.linspace(0, max(float(relative.max()), 1e-6), 41)
    rows, bins = [], {}
    for name, selected in (("chosen", hit), ("others", ~hit)):
        count = int(selected.sum())
        error, size = float(errors[selected].sum()), float(energy[selected].sum())
        served = error / size if size else float("nan")
        rows.append((name, count, count / hit.numel(), error / max(float(errors.sum()), 1e-30), served))
        bins[name] = torch.histogram(relative[selected].float(), edges)[0].numpy() / max(count, 1)
    table = pd.DataFrame(rows, columns=["which", "count", "share", "error_share", "served"])
    return table, pd.DataFrame({"from": edges[:-1].numpy(), "to": edges[1:].numpy(), **bins})


def compute_index_entropy(book: Book) -> float:
    """What an index would take if the stream were entropy-coded, in bits."""
    return entropy(book.counts)
