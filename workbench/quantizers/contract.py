"""The parts of a quantizer and their interfaces. The order in which they run is defined in `pipeline`.

    transform   W' = W T, x' = x T⁻ᵀ online, H' = T⁻¹ H T⁻ᵀ        (so that y = x Wᵀ = x' W'ᵀ)
    split       masks that partition the weights
    coder       one for each mask: parameters, codes, values
    assignment  in which order columns are coded and where their error goes
    correction  what is added to the coded matrix, paid for in the ledger
    activations what happens to the layer's input when it runs
    refinement  what is trained of a whole block once its layers are quantized, at the same stored bits (in `learning.refine`)

Shapes: weight `[rows, cols] = [out_features, in_features]`, second moment `[cols, cols] = E[x xᵀ]`, float32 throughout;
a moment of None means "not calibrated" and stands for the identity. Parts are frozen and hold settings only; what they
find out about a layer is returned as a value. Its type, a frozen dataclass of tensors, stands in the part's base class:

    Transform[StateT]           what the transform finds out about a layer, a `State`
    BlockSplit[ColumnsT]        what the split has to know of each column
    Coder[SharedT, SpanT]       what layers share, `Codebooks` or None; the parameters of one span of columns
    UnsharedCoder[SpanT]        the same for coders whose layers share nothing

So `class Uniform(UnsharedCoder[Grid])` has a `Grid` for each span. A field that these settings have no use for is None.
Whoever runs the parts of a recipe hands such values on and does not look inside, with two exceptions: a run that can be
interrupted stores a state by its `tensors()`, so the names of its fields are in stored files; and viewers read `rounds` of
`Codebooks`. A recipe may hold any parts, so to it they are `Transform[Any]` and `Coder[Any, Any]`.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from workbench.kernels.packing.packed import Packed
from workbench.recipe import Part

if TYPE_CHECKING:
    from workbench.quantizers.learning.descent import LearningStep

SpanT = TypeVar("SpanT")  # parameters of one span of columns


@dataclass(frozen=True)
class WatchedRows:
    """Scales and means of the first few rows of a span after a sweep: `scale [planes, k]`, `mean [k]` where one is used."""

    scale: Tensor
    mean: Tensor | None = None


@dataclass(frozen=True)
class Fit(Generic[SpanT]):
    """Parameters of a coder on one span of columns, and the squared error after each sweep that led to them.

    Every tensor of `params` that is stored is already rounded to the type it is stored in, then widened to float32 for
    arithmetic. `path` holds the watched rows for each entry of `sweeps`.
    """

    params: SpanT
    sweeps: tuple[float, ...] = ()
    path: tuple[WatchedRows, ...] = ()


@dataclass(frozen=True)
class Sweeps:
    """How coder number `coder` of a recipe settled on columns `start:stop`: errors and path of its `Fit`."""

    coder: int
    start: int
    stop: int
    errors: tuple[float, ...]
    path: tuple[WatchedRows, ...]


class Rounding(Protocol):
    """A quantizer inside a learning loop, on matrices that are in their basis already."""

    def __call__(self, w: Tensor, moment: Tensor | None, /) -> Tensor:
        """The values of `w [rows, cols]` under `moment [cols, cols]`; the parameters that it found stay for `nearest`."""

    def nearest(self, w: Tensor, /) -> Tensor:
        """The values of the codes nearest to another `w`, with the parameters of the last call."""


class QuantizerPart(Part):
    """What all parts have in common."""

    @property
    def needs_moment(self) -> bool:
        """Whether this part, with these settings, cannot work without a calibrated second moment."""
        return False


@dataclass(frozen=True)
class State:
    """What a transform finds out about one layer: the tensors of a subclass, None where one is not needed; here none at all."""

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, as a store keeps them; `Transform.read_state` is the inverse."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


StateT = TypeVar("StateT", bound=State)


class Transform(QuantizerPart, Generic[StateT]):
    """A change of basis of the input. Subclasses register under "transform"; `learns` says that finding it out takes time."""

    learns: ClassVar[bool] = False

    def fit(self, w: Tensor, moment: Tensor | None, seed: int) -> StateT:
        """What this transform finds out or draws for one layer."""
        raise NotImplementedError

    def read_state(self, tensors: Mapping[str, Tensor]) -> StateT:
        """The state that has these tensors."""
        raise NotImplementedError

    def learn(self, w: Tensor, moment: Tensor | None, seed: int, rounding: Rounding) -> Generator["LearningStep", None, StateT]:
        """The same for a transform that is learned against the recipe's own coders, step by step; others just `fit`."""
        yield from ()
        return self.fit(w, moment, seed)

    def forward(self, w: Tensor, state: StateT) -> Tensor:
        """W' = W T, `[rows, cols]` to `[rows, cols]`."""
        raise NotImplementedError

    def moment(self, moment: Tensor, state: StateT) -> Tensor:
        """The second moment of the transformed input."""
        raise NotImplementedError

    def pack(self, inner: Packed, state: StateT) -> Packed:
        """The stored form: `inner` wrapped in the format that undoes `forward`, or applies it to the input at run time."""
        raise NotImplementedError


class Split(QuantizerPart):
    """Which coder owns which weight. Subclasses register under "split".

    `shares` are exact for every matrix where `fixed_shares`; else they are what a matrix of normal weights typically gets.
    """

    fixed_shares: ClassVar[bool] = True

    def masks(self, w: Tensor, moment: Tensor | None) -> list[Tensor]:
        """`parts` boolean masks `[rows, cols]` of which exactly one is true everywhere."""
        raise NotImplementedError

    @property
    def parts(self) -> int:
        """How many masks there are."""
        return len(self.shares)

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the weights that each mask is meant to hold, before any layer is seen."""
        raise NotImplementedError

    def pack(self, masks: Sequence[Tensor], children: Sequence[Packed]) -> Packed:
        """The stored form: the map of masks (if any) around the coders' packed codes."""
        raise NotImplementedError


class ColumnFacts(Protocol):
    """What a split that works on blocks has to know of each column."""

    def select(self, columns: slice, /) -> Self:
        """The same for some of the columns."""


ColumnsT = TypeVar("ColumnsT", bound=ColumnFacts)


class BlockSplit(Split, Generic[ColumnsT]):
    """A split of `block` columns at a time, made when coding reaches them, on the columns as errors have moved them by then."""

    block: int

    def columns(self, moment: Tensor | None, cols: int) -> ColumnsT:
        """What the split has to know of each column, read once."""
        raise NotImplementedError

    def block_masks(self, w: Tensor, columns: ColumnsT) -> list[Tensor]:
        """The masks of one block `w [rows, k]`, given what `columns` said about its columns."""
        raise NotImplementedError

    def masks_from(self, w: Tensor, columns: ColumnsT, start: int) -> list[Tensor]:
        """The masks of the block that begins at column `start` of the whole matrix `w`."""
        block = slice(start, start + self.block)
        return self.block_masks(w[:, block], columns.select(block))

    def masks(self, w: Tensor, moment: Tensor | None) -> list[Tensor]:
        """All blocks of the matrix as it is."""
        columns = self.columns(moment, w.shape[1])
        blocks = [self.masks_from(w, columns, start) for start in range(0, w.shape[1], self.block)]
        return [torch.cat(pieces, 1) for pieces in zip(*blocks, strict=True)]


@dataclass(frozen=True)
class Codebooks:
    """What the layers of one scope share: `codebook [entries, length]`, with several planes `[planes, entries, length]`.

    `rounds [codebooks, n]` tells viewers the loss after each round of training, NaN where one had stopped.
    """

    codebook: Tensor
    rounds: Tensor


SharedT = TypeVar("SharedT", bound=Codebooks | None)


class Coder(QuantizerPart, Generic[SharedT, SpanT]):
    """Codes for weights. Subclasses register under "coder".

    `span(cols)` is how many neighbouring columns share parameters (the whole row when it equals `cols`), `step(cols)` how
    many columns are coded together; a step divides its span, and only the last span of a row may be shorter.
    Coders with `full_mask_only` need the split "whole".
    """

    full_mask_only: ClassVar[bool] = False

    @property
    def nominal_bits(self) -> float | None:
        """Bits per weight as papers count them, codes only; None where the stored bits are the nominal ones."""
        raise NotImplementedError

    @property
    def sharing(self) -> str:
        """Which layers share what `prepare` returns: "matrix" (each its own), "projection" (same last name) or "model"."""
        return "matrix"

    def span(self, cols: int) -> int:
        """Columns that share one set of parameters; ShapeError when the settings do not fit `cols`."""
        raise NotImplementedError

    def step(self, cols: int) -> int:
        """Columns coded together: 1 for scalar coders, the vector length for vector coders."""
        return 1

    def prepare(self, weights: Sequence[Tensor]) -> SharedT:
        """What the layers of one scope share, from their transformed weights, which may be read lazily, one at a time."""
        raise NotImplementedError

    def fit(self, w: Tensor, mask: Tensor, shared: SharedT, moment: Tensor | None) -> Fit[SpanT]:
        """Parameters for one span `w [rows, span]`; only masked weights count. `moment` is the span's own block."""
        raise NotImplementedError

    def fit_steps(self, w: Tensor, mask: Tensor, shared: SharedT, moment: Tensor | None) -> Generator[float, None, Fit[SpanT]]:
        """The same for a fit that takes long, telling the share that is done now and then; others just `fit`."""
        yield from ()
        return self.fit(w, mask, shared, moment)

    def fit_weighted_steps(
        self, w: Tensor, mask: Tensor, shared: SharedT, moment: Tensor, rows: Tensor
    ) -> Generator[float, None, Fit[SpanT]]:
        """The same where an error e in row i costs `rows[i]` e H eᵀ; coders that fit each row by itself cannot use that."""
        return self.fit_steps(w, mask, shared, moment)

    def encode(self, w: Tensor, params: SpanT, columns: slice) -> Tensor:
        """Codes of `w [rows, k]`, one for each step of columns; `columns` says which columns of the span these are."""
        raise NotImplementedError

    def encode_under(self, metric: Tensor, w: Tensor, params: SpanT, columns: slice) -> Tensor:
        """The same where an error e in a row of `w` costs e M eᵀ with M = `metric [k, k]`, float64.

        With `metric [groups, k, k]` each group of rows has its own (see `split_rows`). Coders of single columns cannot do better
        than the nearest code.
        """
        return self.encode(w, params, columns)

    def decode(self, codes: Tensor, params: SpanT, columns: slice) -> Tensor:
        """Values of codes, `[rows, columns]`: the float32 values that the packed form will decode to."""
        raise NotImplementedError

    def refit(self, target: Tensor, codes: Tensor, params: list[SpanT], mask: Tensor, moment: Tensor | None) -> list[SpanT]:
        """Better parameters for fixed codes over the whole matrix, or the same ones; never worse on tr(E H Eᵀ).

        With `moment [groups, cols, cols]` each group of rows has its own (see `split_rows`). The coder's values are zero outside
        its mask; `target` is the matrix minus the other coders' values.
        """
        return params

    def pack(self, codes: Tensor, params: list[SpanT], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """The stored form of all spans; `mask` None means every weight, else only masked weights' codes are stored."""
        raise NotImplementedError


class UnsharedCoder(Coder[None, SpanT]):
    """A coder whose layers share nothing, as most coders' do."""

    def prepare(self, weights: Sequence[Tensor]) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Layout:
    """How the columns of a matrix hang together: `step` are coded at once, `span` share parameters."""

    cols: int
    step: int
    span: int

    def batches(self, size: int) -> list[tuple[int, int]]:
        """Cut the columns into `(start, stop)` of about `size`: whole steps, and whole spans or parts of one span."""
        size = max(size // self.step, 1) * self.step
        if self.span <= size:
            size -= size % self.span
            return [(start, min(start + size, self.cols)) for start in range(0, self.cols, size)]
        ends = [min(start + self.span, self.cols) for start in range(0, self.cols, self.span)]
        return [(b, min(b + size, end)) for i, end in enumerate(ends) for b in range(i * self.span, end, size)]


class Quantize(Protocol):
    """What an assignment is given: code columns `start:stop` of the current matrix and return their new values."""

    def __call__(self, w: Tensor, start: int, stop: int, metric: Tensor | None = None, /) -> Tensor:
        """Values `[rows, stop − start]`; an error e of a row costs e M eᵀ, M = `metric` as in `Coder.encode_under`, or e eᵀ."""


class Assignment(QuantizerPart):
    """The order of coding and the path of the error. Subclasses register under "assignment".

    An assignment takes functions, not coders: it knows columns, their steps and spans and a moment, nothing of codes.
    """

    @property
    def static(self) -> bool:
        """Whether parameters are fitted on the original weights before any column is coded."""
        return False

    @property
    def repairs(self) -> bool:
        """Whether a layer in a sequence aims at its output in the original model, and so repairs what layers before it lost."""
        return False

    def fitted_together(self, layout: Layout) -> list[tuple[int, int]]:
        """Columns `(start, stop)` whose parameters are all fitted when the first of them is reached; others span by span."""
        return []

    def run(self, w: Tensor, moment: Tensor | None, layout: Layout, quantize: Quantize) -> Iterator[Tensor]:
        """Code every column of `w` once, in place; yield the matrix after each block, coded columns already replaced.

        With `moment [groups, cols, cols]` each group of rows has its own (see `split_rows`).
        """
        raise NotImplementedError


class Correction(QuantizerPart):
    """Something added to the coded matrix. Subclasses register under "correction"."""

    def fit(self, error: Tensor, moment: Tensor | None) -> Packed | None:
        """The stored correction for `error = W' − Ŵ'` `[rows, cols]`, or None; it decodes to what is added."""
        raise NotImplementedError


class Activations(QuantizerPart):
    """What a layer does to its input, in the transform's basis, when it runs. Subclasses register under "activations"."""

    def pack(self, inner: Packed) -> Packed:
        """The stored form: `inner`, or `inner` wrapped in a format that rounds its input. Nothing more is stored."""
        raise NotImplementedError


@dataclass(frozen=True)
class Snapshot:
    """One step of a running quantizer, for a progress bar or a viewer that scrubs through the algorithm.

    `done` of `total` columns are coded, or so much of them where a fit codes all at once; `event` is "learn" (a step of a
    learned transform), "fit" (sweeps of a coder), "block" (columns coded), "refit" or "correction"; `detail` holds small facts:
    the "step" of a learned transform, "sweeps" (a list of Sweeps: what was fitted since the last snapshot), "relative_error", and
    at the end "coding_trace" (see `coding_trace.CodingTrace`); `weight` is the transformed matrix as it stands.
    """

    event: str
    done: int
    total: int
    detail: dict[str, Any]
    weight: Tensor | None = None

    @property
    def fraction(self) -> float:
        """Share of the columns that are coded, 0 to 1."""
        return self.done / self.total
