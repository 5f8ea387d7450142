"""A row of chips of which one is lit; the arrow keys move along it, and a screen reader says which one it is."""

from typing import Any

import panel as pn
import param

from workbench.widgets.base.component import choose_theme

CHIP_BAR_JS = """
const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }

export function render({ model }) {
  const bar = document.createElement('div')
  bar.className = 'chips'
  bar.setAttribute('role', 'radiogroup')

  const ask = label => { if (label !== undefined) model.value = label }
  const take = focus => {
    bar.setAttribute('aria-label', model.label)
    bar.replaceChildren(...Object.entries(model.options).map(([text, label]) => {
      const chip = document.createElement('button')
      const lit = label === model.value
      chip.type = 'button'
      chip.textContent = text
      chip.setAttribute('role', 'radio')
      chip.setAttribute('aria-checked', lit)
      chip.tabIndex = lit ? 0 : -1
      chip.addEventListener('click', () => ask(label))
      return chip
    }))
    if (focus) bar.querySelector('[aria-checked=true]')?.focus()
  }
  bar.addEventListener('keydown', event => {
    const step = STEPS[event.key]
    if (step === undefined) return
    event.preventDefault()
    const labels = Object.values(model.options)
    ask(labels[Math.max(0, Math.min(labels.length - 1, labels.indexOf(model.value) + step))])
  })
  model.on(['value', 'options', 'label'], () => take(bar.matches(':focus-within')))
  take(false)
  return bar
}
"""


class ChipBar(pn.custom.JSComponent):
    """`options` are values by what their chips say, of which one, `value`, is lit; `label` says what is chosen.

    The lit chip is orange, as what is quantized; with `beside` it is framed in blue-grey, as what that is compared with.
    """

    _esm = CHIP_BAR_JS

    label = param.String(default="")
    options = param.Dict(default={})
    value = param.String(default="")

    def __init__(self, *, beside: bool = False, **settings: Any) -> None:
        super().__init__(**{"margin": (5, 10), "sizing_mode": "stretch_width", **settings})
        self.stylesheets = [*self.stylesheets, _render_chip_bar_css(beside)]


def _render_chip_bar_css(beside: bool) -> str:
    """Chips wrap into as many lines as they take, as wide as their words."""
    colours = choose_theme()
    lit = f"background:{colours.action};color:{colours.contrast};border-color:{colours.action}"
    if beside:
        edge = f"border-color:{colours.original};box-shadow:0 0 0 2px {colours.original}"
        lit = f"background:{colours.surface};color:{colours.text};{edge}"
    return (
        ".chips{display:flex;flex-wrap:wrap;gap:5px}"
        f".chips button{{font:inherit;font-size:0.85rem;color:{colours.text};background:{colours.raised};cursor:pointer;"
        f"border:1px solid {colours.border};border-radius:14px;padding:2px 11px;max-width:100%;overflow-wrap:anywhere}}"
        f".chips button:hover{{border-color:{colours.muted}}} .chips button[aria-checked=true]{{{lit};font-weight:600}}"
        f".chips button:focus-visible{{outline:2px solid {colours.accent};outline-offset:2px}}"
    )
