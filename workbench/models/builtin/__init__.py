"""The built-in model: weights, tokenizer, original text, and the script that trained it."""
