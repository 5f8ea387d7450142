"""Corrections added to the coded matrix; importing the package registers all of them."""

from workbench.quantizers.corrections.low_rank import LowRank
from workbench.quantizers.corrections.none import NoCorrection

__all__ = ["LowRank", "NoCorrection"]
