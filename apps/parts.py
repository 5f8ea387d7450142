"""Your own dashboard from the parts, linked to each other: `panel serve apps/parts.py`."""

import panel as pn

import workbench as wb

if pn.state.served:
    weights = wb.WeightInspector("builtin", "model.layers.0.mlp.down_proj")
    bench, errors = wb.LayerBench(weights), wb.LayerErrors(weights)
    figures = pn.Column(weights, errors, sizing_mode="stretch_width")
    pn.Row(pn.Column(bench, width=380), figures, sizing_mode="stretch_width").servable(title="workbench · parts")
