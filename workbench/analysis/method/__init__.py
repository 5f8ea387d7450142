"""What a method did inside a layer: its codewords, groups, transform, calibration and run."""
