"""Searches that splits share: saliency, thresholds and numbers of columns."""
