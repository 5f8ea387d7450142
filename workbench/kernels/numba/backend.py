"""Backend `numba`: products straight from packed codes on the CPU, compiled for it at first use and kept on disk.

Signs select sums of neighbouring inputs from small tables (`tables.py`, `signs.py`). Every format whose values are sums of signs
runs this way: sign planes, binary codes, binary codebooks, and what a mask makes of them. Words of real numbers are decoded, once
to fp16 or some rows at a time (`halves.py`, `words.py`).
"""

from workbench.interrupts import deferred
from workbench.kernels.composed import Shaped
from workbench.kernels.mode import Mode, Product
from workbench.kernels.numba.formats import refuses
from workbench.kernels.packed import Packed
from workbench.kernels.reference.declared import check_tree

__all__ = ["prepare", "refuses"]


def prepare(packed: Packed, mode: Mode) -> Product:
    """The product with a stored tree; ShapeError where it does not hold what its formats declare: loops read without looking."""
    check_tree(packed)
    with deferred():
        from workbench.kernels.numba import products

    return Shaped(products.prepare(packed, mode), packed.rows, packed.cols, "numba")
