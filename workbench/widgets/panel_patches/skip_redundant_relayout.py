"""Figures of a served page are not redrawn when something else on the page is shown or hidden.

After every change of the page's layout Panel 1.9 gives each figure its size, and Plotly draws it again, also where it has that
size already: ten times for one setting, a tenth of a second each.
"""

import panel as pn
from bokeh.models import CustomJS

NEEDED_WITH = {"panel": "1.9", "plotly": "7"}  # the newest releases that were seen to need this

SAME_SIZE = """
const plotly = window.Plotly;
if (plotly !== undefined && !plotly.steady) {
  const relayout = plotly.relayout;
  plotly.relayout = (figure, change, ...others) => {
    const drawn = figure._fullLayout;
    const same = ([name, value]) => (name === "width" || name === "height") && drawn[name] === value;
    const steady = drawn !== undefined && typeof change === "object" && Object.entries(change).every(same);
    return steady ? Promise.resolve(figure) : relayout(figure, change, ...others);
  };
  plotly.steady = true;
}
"""


def skip_redundant_redraws() -> None:
    """Let figures of this visitor's page be drawn anew only where their size has changed."""
    if pn.state.curdoc is not None:
        pn.state.curdoc.js_on_event("document_ready", CustomJS(code=SAME_SIZE))
