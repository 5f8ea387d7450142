"""The five parts of a quantizer and what each promises. The order in which they run is in `pipeline`, and only there.

    transform   W' = W T, H' = Tᵀ H T, and x' = x T⁻ᵀ online       (so that y = x Wᵀ = x' W'ᵀ)
    split       masks that partition the weights
    coder       one for each mask: parameters, codes, values
    assignment  in which order columns are coded and where their error goes
    correction  what is added to the coded matrix, paid for in the ledger

Shapes: weight `[rows, cols] = [out_features, in_features]`, second moment `[cols, cols] = E[x xᵀ]`, float32 throughout;
a moment of None means "not calibrated" and stands for the identity. Parts are frozen and hold settings only; what they
find out about a layer is returned as a value.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from workbench.kernels.packed import Packed
from workbench.recipe import Part

Params = dict[str, Tensor]


@dataclass(frozen=True)
class Fit:
    """Parameters of a coder on one span of columns, and the squared error after each sweep that led to them.

    Every tensor in `params` is already rounded to the type it is stored in, then widened to float32 for arithmetic.
    """

    params: Params
    sweeps: tuple[float, ...] = ()


class Transform(Part):
    """A change of basis of the input. Subclasses register under "transform"."""

    def fit(self, w: Tensor, moment: Tensor | None, seed: int) -> Params:
        """What this transform learns or draws for one layer; may be empty."""
        raise NotImplementedError

    def forward(self, w: Tensor, state: Params) -> Tensor:
        """W' = W T, `[rows, cols]` to `[rows, cols]`."""
        raise NotImplementedError

    def inverse(self, w: Tensor, state: Params) -> Tensor:
        """W = W' T⁻¹, the exact inverse of `forward`."""
        raise NotImplementedError

    def moment(self, moment: Tensor, state: Params) -> Tensor:
        """The second moment of the transformed input."""
        raise NotImplementedError

    def pack(self, inner: Packed, state: Params) -> Packed:
        """The stored form: `inner` wrapped in the format that applies this transform to the input at run time."""
        raise NotImplementedError


class Split(Part):
    """Which coder owns which weight. Subclasses register under "split"."""

    parts: ClassVar[int] = 1

    def masks(self, w: Tensor, moment: Tensor | None) -> list[Tensor]:
        """`parts` boolean masks `[rows, cols]` of which exactly one is true everywhere."""
        raise NotImplementedError

    @property
    def shares(self) -> tuple[float, ...] | None:
        """Expected share of the weights in each mask, where the settings alone decide it."""
        raise NotImplementedError

    def pack(self, masks: Sequence[Tensor], children: Sequence[Packed]) -> Packed:
        """The stored form: the map of masks (if any) around the coders' packed codes."""
        raise NotImplementedError


class Coder(Part):
    """Codes for weights. Subclasses register under "coder".

    `span(cols)` is how many neighbouring columns share parameters (the whole row when it equals `cols`), `step(cols)` how
    many columns are coded together; a step divides its span. `whole` coders need the split "whole".
    """

    whole: ClassVar[bool] = False

    @property
    def nominal_bits(self) -> float:
        """Bits per weight as papers count them: codes only."""
        raise NotImplementedError

    def span(self, cols: int) -> int:
        """Columns that share one set of parameters; ShapeError when the settings do not fit `cols`."""
        raise NotImplementedError

    def step(self, cols: int) -> int:
        """Columns coded together: 1 for scalar coders, the vector length for vector coders."""
        return 1

    def prepare(self, weights: Sequence[Tensor]) -> Params:
        """What is shared by several layers (a codebook), from their transformed weights; empty for most coders."""
        return {}

    def fit(self, w: Tensor, mask: Tensor, shared: Params, moment: Tensor | None) -> Fit:
        """Parameters for one span `w [rows, span]`; only masked weights count. `moment` is the span's own block."""
        raise NotImplementedError

    def encode(self, w: Tensor, params: Params, columns: slice) -> Tensor:
        """Integer codes of `w [rows, k]`, where `columns` says which columns of the span these are."""
        raise NotImplementedError

    def decode(self, codes: Tensor, params: Params, columns: slice) -> Tensor:
        """Values `[rows, k]` of codes; the float32 values that the packed form will decode to."""
        raise NotImplementedError

    def refit(self, w: Tensor, codes: Tensor, params: list[Params], mask: Tensor, moment: Tensor | None) -> list[Params]:
        """Better parameters for fixed codes over the whole matrix, or the same ones; never worse on tr(E H Eᵀ)."""
        return params

    def pack(self, codes: Tensor, params: list[Params], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """The stored form of all spans; `mask` None means every weight, else only masked weights' codes are stored."""
        raise NotImplementedError


class Quantize(Protocol):
    """What an assignment is given: code columns `start:stop` of the current matrix and return their new values."""

    def __call__(self, w: Tensor, start: int, stop: int) -> Tensor: ...


class Assignment(Part):
    """The order of coding and the path of the error. Subclasses register under "assignment".

    An assignment takes functions, not coders: it knows columns, a step and a moment, nothing of codes.
    """

    needs_moment: ClassVar[bool] = False

    @property
    def static(self) -> bool:
        """Whether parameters are fitted on the original weights before any column is coded."""
        return False

    def run(self, w: Tensor, moment: Tensor | None, step: int, quantize: Quantize) -> Iterator[tuple[int, Tensor]]:
        """Code every column once; after each block yield `(columns done, matrix)`, coded columns already replaced."""
        raise NotImplementedError


class Correction(Part):
    """Something added to the coded matrix. Subclasses register under "correction"."""

    def fit(self, error: Tensor, moment: Tensor | None) -> Packed | None:
        """The stored correction for `error = W' − Ŵ'` `[rows, cols]`, or None; it decodes to what is added."""
        raise NotImplementedError


@dataclass(frozen=True)
class Snapshot:
    """One step of a running quantizer, for a progress bar or a viewer that scrubs through the algorithm.

    `done` of `total` columns are coded; `event` is "fit" (sweeps of a coder), "block" (columns coded), "refit" or
    "correction"; `detail` holds small facts such as the error; `weight` is the transformed matrix as it stands.
    """

    event: str
    done: int
    total: int
    detail: dict[str, Any]
    weight: Tensor | None = None


Progress = Callable[[Snapshot], None]
