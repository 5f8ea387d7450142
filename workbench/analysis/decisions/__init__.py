"""Measures for decisions: bit ledger, error budget, squeeze, scaling law and quant card."""
