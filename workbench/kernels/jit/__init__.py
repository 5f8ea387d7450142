"""Support for compiled loops: cached compilation, SIMD instructions, threads."""
