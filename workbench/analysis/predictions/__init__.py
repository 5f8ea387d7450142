"""What quantization does to a model's predictions, its text, its cache and its speed."""
