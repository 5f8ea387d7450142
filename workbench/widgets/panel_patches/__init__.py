"""Workarounds for Panel, Bokeh, Plotly and ipykernel, one per module.

Each says in its docstring what is wrong without it, and in `NEEDED_WITH` the newest releases with which that was seen. A test
fails as soon as a newer one is installed: look then whether the module can go, and delete it or raise the version.
"""
