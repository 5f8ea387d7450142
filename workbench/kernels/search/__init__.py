"""Searches for the nearest code: codewords, parity checks, trellis paths."""
