"""The searches as compiled loops."""
