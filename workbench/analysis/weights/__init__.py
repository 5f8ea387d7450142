"""Statistics of weights: distributions, channels, the residual stream, and cached tables."""
