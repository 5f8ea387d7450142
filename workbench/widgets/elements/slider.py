"""An accessible slider: the browser's own range field, with a label, names for its stops and the page's colours."""

from typing import Any

import panel as pn
import param

from workbench.widgets.base.component import choose_theme

THROTTLE = 80  # milliseconds between two values that are sent while the handle moves; the latest wins
SLIDER_JS = """
export function render({ model }) {
  const box = document.createElement('div')
  const label = document.createElement('label')
  const words = document.createElement('span')
  const field = document.createElement('input')
  box.className = 'slider'
  words.className = 'words'
  field.type = 'range'
  field.id = label.htmlFor = 'field'
  box.append(label, words, field)

  const show = () => {
    words.textContent = model.options.length ? model.options[Number(field.value)] ?? '' : String(Number(field.value))
    field.setAttribute('aria-valuetext', words.textContent)
  }
  const take = () => {
    if (moving !== null) return
    const most = model.options.length ? model.options.length - 1 : model.end
    Object.assign(field, { min: model.start, max: most, step: model.step, disabled: model.disabled, title: model.description })
    field.value = model.value
    label.textContent = model.label
    show()
  }
  let moving = null
  const step = event => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key]
    const taken = event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey
    const typing = event.composedPath().some(e => ['INPUT', 'TEXTAREA', 'SELECT'].includes(e.tagName))
    if (!model.follows_page_keys || way === undefined || taken || typing) return
    event.preventDefault()
    field.focus()  // so that a screen reader says where it is
    way > 0 ? field.stepUp() : field.stepDown()
    field.dispatchEvent(new Event('input'))
  }
  const send = () => { moving = null; model.value = Number(field.value); take() }
  field.addEventListener('input', () => { show(); moving ??= setTimeout(send, THROTTLE) })
  model.on(['value', 'start', 'end', 'step', 'options', 'disabled', 'label', 'description'], take)
  model.on('follows_page_keys', () => { if (model.follows_page_keys) field.focus() })
  document.addEventListener('keydown', step)
  model.on('remove', () => document.removeEventListener('keydown', step))
  take()
  return box
}
"""


class Slider(pn.custom.JSComponent):
    """A number between `start` and `end`, or with `options`, which of these words, counted from 0.

    `value` follows the handle at most every 80 ms, with the position it has by then. With `follows_page_keys` the left and the
    right arrow key move it wherever on the page they are pressed.
    """

    _esm = SLIDER_JS.replace("THROTTLE", str(THROTTLE))

    label = param.String(default="")
    description = param.String(default="")
    value = param.Number(default=0)
    start = param.Number(default=0)
    end = param.Number(default=1)
    step = param.Number(default=1)
    options = param.List(default=[], item_type=str)
    disabled = param.Boolean(default=False)
    follows_page_keys = param.Boolean(default=False)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"margin": (5, 10), **settings})
        self.stylesheets = [*self.stylesheets, _render_slider_css()]


def _render_slider_css() -> str:
    """The page's colours; the words stand at the end of the label's line."""
    colours = choose_theme()
    return (
        f".slider{{display:grid;grid-template-columns:1fr auto;gap:2px 8px;font-size:0.8rem;color:{colours.text};"
        f"color-scheme:{colours.name}}} .words{{color:{colours.muted};font-variant-numeric:tabular-nums}}"
        f"input{{grid-column:1/-1;width:100%;margin:0;height:24px;accent-color:{colours.action};cursor:pointer}}"
        f"input:disabled{{cursor:default}} input:focus-visible{{outline:2px solid {colours.accent};outline-offset:2px}}"
    )
