"""Products by lookup: sums of inputs under every pattern of signs, read from tables."""
