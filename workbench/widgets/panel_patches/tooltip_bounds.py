"""Tooltips of a served page stay inside the window.

Panel 1.9 opens each to the right of its control, also beside controls at the right edge, where the window cuts it off.
"""

import panel as pn
from bokeh.models import CustomJS

NEEDED_WITH = {"panel": "1.9"}  # the newest releases that were seen to need this

INSIDE = """
const MARGIN = 8;
const BELOW = 20;  // from the middle of a control to below it

function keep(tooltip) {
  const place = `${tooltip.style.left} ${tooltip.style.top}`;
  if (tooltip.kept === place) return;
  tooltip.kept = place;
  tooltip.style.translate = "";
  const box = tooltip.getBoundingClientRect();
  const beyond = box.right + MARGIN - document.documentElement.clientWidth;
  if (beyond <= 0) return;
  const down = box.height / 2 + BELOW;
  const fits = box.bottom + down < document.documentElement.clientHeight;
  tooltip.style.translate = `${-Math.min(beyond, box.left - MARGIN)}px ${fits ? down : -down}px`;
  tooltip.classList.remove("bk-show-arrow");
}

if (!document.tooltipsKept) {
  document.tooltipsKept = new MutationObserver(() => document.querySelectorAll("body > .bk-Tooltip").forEach(keep));
  document.tooltipsKept.observe(document.body, {childList: true, subtree: true, attributes: true, attributeFilter: ["style"]});
}
"""


def keep_tooltips_inside() -> None:
    """Let tooltips that would leave the window open below or above their control instead."""
    if pn.state.curdoc is not None:
        pn.state.curdoc.js_on_event("document_ready", CustomJS(code=INSIDE))
