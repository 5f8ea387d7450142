"""Matmuls with matrices whose values are not sums of signs: fp16 values, sparse rows, codebooks."""
