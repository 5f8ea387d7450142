"""Matmul by table lookup: sums of inputs under every pattern of signs."""
