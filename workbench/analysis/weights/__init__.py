"""What weights look like: distributions, channels, the residual stream, and tables kept by content."""
