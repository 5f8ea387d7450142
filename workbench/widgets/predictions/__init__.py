"""Components that show what quantization does to predictions, texts, caches and speed."""
