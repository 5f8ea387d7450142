"""Components that show weights and channels."""
