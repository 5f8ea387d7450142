"""Effects of quantization on predictions, generated text, cache and speed."""
