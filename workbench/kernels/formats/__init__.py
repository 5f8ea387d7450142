"""How quantized matrices are stored, and what they decode to."""
