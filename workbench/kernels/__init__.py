"""How quantized matrices are stored, what they decode to, and the backends that multiply with them."""
