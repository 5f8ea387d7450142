"""Figures to decide by: rate and distortion, error budget, bit ledger, squeeze stops, quant card."""
