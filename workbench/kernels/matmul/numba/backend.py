"""Backend `numba`: matmuls directly from packed codes on the CPU, compiled at first use and cached on disk.

Signs select sums of neighbouring inputs from small tables (`lut/tables.py`, `lut/sign_matmul.py`). Every format whose values are
sums of signs runs this way: sign planes, binary codes, binary codebooks, and what a mask makes of them. Codewords of real numbers
are decoded, once to fp16 or some rows at a time (`dense/fp16_matmul.py`, `dense/codebook_matmul.py`).
"""

from workbench.interrupts import defer_interrupts
from workbench.kernels.formats.declared import check_tree
from workbench.kernels.kernel_mode import Mode, Product
from workbench.kernels.matmul.composed import Shaped
from workbench.kernels.matmul.numba.supported import describe_refusal
from workbench.kernels.packing.packed import Packed

__all__ = ["describe_refusal", "prepare"]


def prepare(packed: Packed, mode: Mode) -> Product:
    """The product with a stored tree; ShapeError where it does not hold what its formats declare: loops read without looking."""
    check_tree(packed)
    with defer_interrupts():
        from workbench.kernels.matmul.numba import preparation

    return Shaped(preparation.prepare(packed, mode), packed.rows, packed.cols, "numba")
