"""How numbers become bits: trees of stored tensors, integers and trits packed, sparsity and error-correcting codes."""
