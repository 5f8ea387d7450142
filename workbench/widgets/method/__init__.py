"""Components that show what a method did inside a layer."""
