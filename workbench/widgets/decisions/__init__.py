"""Components to decide with: the Pareto painter, the bit ledger, squeeze, scaling law and quant card."""
