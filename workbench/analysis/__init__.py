"""Measures of weights, of errors and of whole models; plain data or DataFrames out, no figures."""
