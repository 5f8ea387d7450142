"""Models that other programs quantized, with their own codes in the formats of this workbench."""

from workbench.exchange.takeover.importance import read_imatrix
from workbench.exchange.takeover.model import take_over

__all__ = ["read_imatrix", "take_over"]
