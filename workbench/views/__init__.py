"""Figures: a DataFrame or array in, a plotly figure with its question, answer and table out. No session, no widgets."""
