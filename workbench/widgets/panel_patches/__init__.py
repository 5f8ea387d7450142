"""Workarounds for Panel, Bokeh, Plotly and ipykernel, one a module."""
