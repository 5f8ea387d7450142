"""The reference of every stored format, in plain torch: its decoded matrix, and its matmul with an input.

Other backends are checked against this one. Importing the package registers all formats under the kind "format".
"""

from workbench.kernels.formats import (
    arranged,
    codebook,
    composite,
    factors,
    grids,
    parity,
    planes,
    rotation,
    rounding,
    ternary,
    transforms,
    trellis,
)
from workbench.kernels.formats.format import Format, decode, linear, recode_nearest
from workbench.kernels.formats.product import prepare

__all__ = [
    "Format",
    "arranged",
    "codebook",
    "composite",
    "decode",
    "factors",
    "grids",
    "linear",
    "parity",
    "planes",
    "prepare",
    "recode_nearest",
    "rotation",
    "rounding",
    "ternary",
    "transforms",
    "trellis",
]
