"""Coders: they map numbers or vectors to codes; importing the package registers all of them."""

from workbench.quantizers.coders.binary_codebook import BinaryCodebook
from workbench.quantizers.coders.binary_factors import BinaryFactors
from workbench.quantizers.coders.codebook_planes import CodebookPlanes
from workbench.quantizers.coders.keep import Keep
from workbench.quantizers.coders.parity_signs import ParitySigns
from workbench.quantizers.coders.released_sign import ReleasedSign
from workbench.quantizers.coders.sign import Sign
from workbench.quantizers.coders.ternary import Ternary
from workbench.quantizers.coders.trellis import Trellis
from workbench.quantizers.coders.uniform import Uniform
from workbench.quantizers.coders.vector_codebook import VectorCodebook
from workbench.quantizers.coders.zero import Zero

__all__ = [
    "BinaryCodebook",
    "BinaryFactors",
    "CodebookPlanes",
    "Keep",
    "ParitySigns",
    "ReleasedSign",
    "Sign",
    "Ternary",
    "Trellis",
    "Uniform",
    "VectorCodebook",
    "Zero",
]
