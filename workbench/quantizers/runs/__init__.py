"""Runs over one layer or a whole model: blocks in sequence, checkpoints, progress, items that layers share."""
