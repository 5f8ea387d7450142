"""Formats of quantized matrices, their decoding, and the backends of their matmul."""
