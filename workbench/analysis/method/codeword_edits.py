"""Edits of codewords: merge one into another, revive it, or remove it. The edited layer is measured like any other.

The layer that is given stays as it is. A codebook whose words change belongs to its layer alone from then on and is paid for by
it: other layers may go on using the words as they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.analysis.method.coded_basis import extract_coded_basis
from workbench.analysis.method.codewords import Book, list_codebooks, read_book
from workbench.errors import WorkbenchError
from workbench.kernels import formats
from workbench.kernels.formats.codebook import compute_index_width, compute_magnitudes
from workbench.kernels.formats.format import expand_groups
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed, build_ledger
from workbench.kernels.search import codeword_search
from workbench.quantized import QuantizedLayer
from workbench.quantizers.distance import compute_output_error, compute_relative_error

CANDIDATES = 256  # patterns tried for a revived codeword
VECTORS_AT_ONCE = 1 << 16  # vectors compared with all candidates at a time
ROUNDING = 1e-5  # of a vector's energy: a gain below it is none


@dataclass(frozen=True)
class CodeEdit:
    """A changed layer beside the one it came from, what was done in words, and how many vectors changed their codeword."""

    layer: QuantizedLayer
    before: QuantizedLayer
    moved: int

    @property
    def sentence(self) -> str:
        """What was done last."""
        return self.layer.edits[-1]


def merge(layer: QuantizedLayer, weight: Tensor, moment: Tensor | None, path: str, source: int, into: int) -> CodeEdit:
    """Every vector that uses codeword `source` uses `into` instead; `source` is dead then and may be revived or taken out."""
    book = find(layer, path)
    book.check([source, into])
    if source == into:
        raise WorkbenchError(f"code {source} cannot be merged into itself; name two codes.")
    moved = book.index == source
    if not moved.any():
        raise WorkbenchError(f"code {source} is dead: no vector uses it, so there is nothing to merge. Revive it, or remove it.")
    node = _replace_index(book.node, torch.where(moved, into, book.index), book.entries)
    return _apply_edit(layer, weight, moment, path, node, f"code {source} merged into {into}", int(moved.sum()))


def revive(layer: QuantizedLayer, weight: Tensor, moment: Tensor | None, path: str, code: int) -> CodeEdit:
    """A dead codeword becomes the one that takes most error away, and gets the vectors that it suits better than their own.

    Tried are, for a binary codebook, the 256 sign patterns that lose most in all; for others the 256 vectors that lose most, the
    best of them then moved to the mean of those it wins. Vectors move only where their own squared error falls.
    """
    book = find(layer, path)
    book.check([code])
    if used := int(book.counts[code]):
        raise WorkbenchError(f"code {code} is used by {used} vectors; choose a dead code, or merge it into another one first.")
    target, size = _compute_targets(layer.packed, weight, book)
    word, moved = (_find_best_signs if book.binary else _find_best_values)(book, target, size)
    if not moved.any():
        raise WorkbenchError("no vector would have a lower error with a new codeword; nothing was changed.")
    words = book.words.clone()
    words[code] = word
    node = _replace_index(_replace_codewords(book, words), torch.where(moved.view_as(book.index), code, book.index), book.entries)
    return _apply_edit(layer, weight, moment, path, node, f"code {code} revived", int(moved.sum()))


def remove_dead(layer: QuantizedLayer, weight: Tensor, moment: Tensor | None, path: str) -> CodeEdit:
    """The codebook with its used words alone, numbered anew: fewer words, and shorter indices where a power of two is passed."""
    book = find(layer, path)
    used = book.counts > 0
    left, dead = int(used.sum()), int((~used).sum())
    if dead == 0:
        raise WorkbenchError(f"all {left} codewords are used; there is nothing to remove.")
    node = _replace_codewords(book, book.words[used])
    node = _replace_index(node, (used.cumsum(0) - 1)[book.index], left)
    return _apply_edit(layer, weight, moment, path, node, f"{dead} dead codes removed", 0)


def find(layer: QuantizedLayer, path: str) -> Book:
    """One codebook of a layer by its path."""
    by_path = {book.path: book for book in list_codebooks(layer.packed)}
    if path not in by_path:
        raise WorkbenchError(
            f"layer {layer.name!r} has no codebook at {path!r}; it has {len(by_path)}: {', '.join(map(repr, by_path))}."
        )
    return by_path[path]


def _replace_index(node: Packed, index: Tensor, entries: int) -> Packed:
    """The node with other indices into `entries` words."""
    stream = bitpack.pack(index.reshape(-1), compute_index_width(entries))
    return replace(node, tensors={**node.tensors, "index": stream}, facts={**node.facts, "entries": entries})


def _replace_codewords(book: Book, words: Tensor) -> Packed:
    """The node with other codewords, its own from now on."""
    stored = bitpack.pack((words > 0).to(torch.uint8), 1) if book.binary else words.to(book.node.tensors["codebook"].dtype)
    shared = {name: owners for name, owners in book.node.shared.items() if name != "codebook"}
    return replace(book.node, tensors={**book.node.tensors, "codebook": stored}, shared=shared)


def _compute_targets(packed: Packed, weight: Tensor, book: Book) -> tuple[Tensor, Tensor]:
    """What this codebook has to stand for when all else stays, and the size of its words there: `[vectors, length]` each."""
    node, target, _ = extract_coded_basis(packed, weight)
    target = target - formats.decode(node) + formats.decode(book.node)
    if "mean" in book.node.tensors:
        target = target - expand_groups(book.node.tensors["mean"], book.node.facts["span"], book.node.cols)
    short = (0, -book.node.cols % book.length)  # nothing counts past the last column
    target, size = (torch.nn.functional.pad(x, short).reshape(-1, book.length) for x in (target, compute_magnitudes(book.node)))
    return target, size


def _compute_losses(target: Tensor, size: Tensor, words: Tensor) -> Tensor:
    """‖t − s·c‖² less ‖t‖² of every vector and word, `[vectors, words]`."""
    return size.square() @ words.square().mT - 2 * (size * target) @ words.mT


def _compute_current_loss(book: Book, target: Tensor, size: Tensor) -> Tensor:
    """The same for the word that each vector uses now, `[vectors]`."""
    value = size * book.words[book.index.reshape(-1)]
    return (value.square() - 2 * value * target).sum(1)


def _compute_gains(book: Book, target: Tensor, size: Tensor, words: Tensor) -> Tensor:
    """How much squared error each of `words` would take away if the vectors it suits better used it, `[words]`."""
    now, total = _compute_current_loss(book, target, size), torch.zeros(len(words), dtype=torch.float64)
    for part in torch.arange(len(target)).split(VECTORS_AT_ONCE):
        total += (now[part, None] - _compute_losses(target[part], size[part], words)).clamp(min=0).sum(0, dtype=torch.float64)
    return total


def _find_best_signs(book: Book, target: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The sign pattern that takes most error away, and which vectors it serves better."""
    pull = size * target
    excess = pull.abs().sum(1) - (pull * book.words[book.index.reshape(-1)]).sum(1)
    names, group = codeword_search.encode_signs(pull).unique(return_inverse=True)
    extra_error = torch.zeros(len(names)).scatter_add_(0, group, excess)
    worst = names[extra_error.topk(min(CANDIDATES, len(names))).indices]
    candidates = codeword_search.decode_signs(worst, book.length)
    return _select_movers(book, target, size, candidates[_compute_gains(book, target, size, candidates).argmax()])


def _find_best_values(book: Book, target: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The same for a codebook of values, in the type they are stored in."""
    stored = book.node.tensors["codebook"].dtype
    excess = _compute_current_loss(book, target, size) + target.square().sum(1)
    worst = excess.topk(min(CANDIDATES, len(excess))).indices
    candidates = (target[worst] / size[worst].clamp(min=1e-30)).to(stored).float()
    candidates = candidates[candidates.isfinite().all(1)]
    first, moved = _select_movers(book, target, size, candidates[_compute_gains(book, target, size, candidates).argmax()])
    mean = (size * target)[moved].sum(0) / size[moved].square().sum(0).clamp(min=1e-30)
    both = torch.stack([first, mean.to(stored).float()])
    return _select_movers(book, target, size, both[_compute_gains(book, target, size, both).argmax()])


def _select_movers(book: Book, target: Tensor, size: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
    """A word, and which vectors it serves better than their own."""
    slack = ROUNDING * target.square().sum(1)
    return word, _compute_losses(target, size, word[None])[:, 0] < _compute_current_loss(book, target, size) - slack


def _apply_edit(
    layer: QuantizedLayer, weight: Tensor, moment: Tensor | None, path: str, node: Packed, summary: str, moved: int
) -> CodeEdit:
    """The layer with another node at `path`, its cost and its errors measured on what is stored then."""
    packed = _replace_node(layer.packed, [int(step) for step in path.split(".") if step], node)
    decoded = formats.decode(packed)
    changed = replace(
        layer,
        packed=packed,
        ledger=build_ledger(packed, layer.nominal_bits),
        relative_error=compute_relative_error(weight, decoded),
        output_error=None if moment is None else compute_output_error(weight, decoded, moment),
        edits=(*layer.edits, summary),
    )
    return CodeEdit(changed, layer, moved)


def _replace_node(packed: Packed, path: Sequence[int], node: Packed) -> Packed:
    """A tree with another node at the end of a path."""
    if not path:
        return node
    children = [_replace_node(child, path[1:], node) if i == path[0] else child for i, child in enumerate(packed.children)]
    return replace(packed, children=tuple(children))


def count_index_bits(edit: CodeEdit, path: str) -> tuple[int, int]:
    """Bits of an index before and after."""
    before, after = (read_book(path, dict(layer.packed.walk())[path]) for layer in (edit.before, edit.layer))
    return before.width, after.width
