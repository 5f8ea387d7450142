"""Figures of what quantization does to predictions, texts, caches and speed."""
