"""Solvers that coders share: k-means, ADMM, sign planes, grids and least squares."""
