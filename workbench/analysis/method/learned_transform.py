"""A learned transform as plain numbers: loss curve, gains, signs and rotations."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import ShapeError
from workbench.kernels.formats.rotation import Rotated, decode_diagonal, decode_rotations
from workbench.kernels.packing.packed import Packed, count_stored_bits

if TYPE_CHECKING:
    import pandas as pd

    from workbench.quantizers.learning.descent import LearningStep


@dataclass(frozen=True)
class LearnedTransform:
    """T = Λ D± R H of one layer: `diagonal [cols]` of Λ D±, and the rotations whose Kronecker product is R (none, or two).

    `bits` are stored for it (before layers that share it divide them), `multiply_adds` what it costs a token at run time,
    `hadamard` says whether the fixed Hadamard transform H is part of it.
    """

    diagonal: np.ndarray
    rotations: tuple[np.ndarray, ...]
    bits: int
    multiply_adds: int
    hadamard: bool = False

    @property
    def flipped(self) -> int:
        """Inputs whose sign is flipped."""
        return int((self.diagonal < 0).sum())


def read_learned_transform(packed: Packed) -> LearnedTransform:
    """The transform of a packed layer; ShapeError when it was quantized without a learned one."""
    if packed.format != "rotated":
        raise ShapeError(f"this layer has no learned transform (its format is {packed.format!r}); use btc with transform='both'.")
    bits = sum(count_stored_bits(tensor) for tensor in packed.tensors.values())
    matrices = tuple(matrix.numpy() for matrix in decode_rotations(packed))
    fixed = bool(packed.facts.get("hadamard"))
    return LearnedTransform(decode_diagonal(packed, 1).numpy(), matrices, bits, Rotated.multiply_adds(packed), fixed)


def tabulate_losses(steps: Iterable["LearningStep"]) -> "pd.DataFrame":
    """Tabulate the loss of every step in which a transform was learned.

    Args:
        steps: The steps of a run, `Trace.learning`.

    Returns:
        One row a step: step (0 for every start that was tried), loss (on training windows), held_out (NaN between two looks).

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> stats = wb.calibrate(model, wb.text("calibration"), tokens=128, layers=[layer])
        >>> learned = wb.part("transform", "learned", steps=2, draws=1)
        >>> trace = wb.measures.Trace()
        >>> result = wb.quantize(model, layer, wb.recipe("binary").replace(transform=learned), stats, on_progress=trace.see)
        >>> int(wb.measures.transform_losses(trace.learning)["step"].max())
        2
    """
    import pandas as pd

    rows = [(step.step, step.loss, np.nan if step.held_out is None else step.held_out) for step in steps]
    return pd.DataFrame(rows, columns=["step", "loss", "held_out"])
