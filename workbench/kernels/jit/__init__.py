"""What compiled loops need: cached compilation, SIMD instructions, threads."""
