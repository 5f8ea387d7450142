"""Measures of weights, of errors and of whole models; they return plain data or DataFrames, no figures."""
