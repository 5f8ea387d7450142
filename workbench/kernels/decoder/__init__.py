"""What a decoder block computes beside its matrices, compiled: norms, positions, attention, and the gate."""
