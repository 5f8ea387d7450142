"""Workarounds for Panel, Bokeh, Plotly and ipykernel, one per module."""
