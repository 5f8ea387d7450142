"""Packing numbers into bits: trees of stored tensors, integers, trits, sparsity and error-correcting codes."""
