"""A row of buttons of which one is chosen, as a script: the arrow keys move along it, and a screen reader says which one it is.

`options` of the model are values, or values by what their buttons say; `value` is the one that is chosen.
"""

import json

ALONG = {"ArrowRight": 1, "ArrowLeft": -1}
UP_AND_DOWN = {"ArrowDown": 1, "ArrowUp": -1}
TEMPLATE = """
const KIND = __KIND__
const END = 1e9

export function render({ model }) {
  const row = document.createElement('div')
  row.className = KIND.css
  row.setAttribute('role', KIND.row)

  const list = () => Array.isArray(model.options) ? model.options.map(value => [value, value]) : Object.entries(model.options)
  const ask = value => { if (value !== undefined) model.value = value }
  const take = focus => {
    row.setAttribute('aria-label', model.label)
    row.replaceChildren(...list().map(([text, value]) => {
      const button = document.createElement('button')
      const chosen = value === model.value
      button.type = 'button'
      button.textContent = text
      button.setAttribute('role', KIND.button)
      button.setAttribute(KIND.state, chosen)
      button.tabIndex = chosen ? 0 : -1
      button.addEventListener('click', () => ask(value))
      return button
    }))
    if (focus) row.querySelector(`[${KIND.state}=true]`)?.focus()
  }
  row.addEventListener('keydown', event => {
    const step = { Home: -END, End: END, ...KIND.keys }[event.key]
    if (step === undefined) return
    event.preventDefault()
    const values = list().map(([, value]) => value)
    ask(values[Math.max(0, Math.min(values.length - 1, values.indexOf(model.value) + step))])
  })
  model.on(['value', 'options', 'label'], () => take(row.matches(':focus-within')))
  take(false)
  return row
}
"""


def render_choice_row_js(css: str, roles: tuple[str, str], state: str, keys: dict[str, int]) -> str:
    """The script of a row with a class for its style, roles of the row and its buttons, the attribute that says which one is
    chosen, and the steps of keys."""
    kind = {"css": css, "row": roles[0], "button": roles[1], "state": state, "keys": keys}
    return TEMPLATE.replace("__KIND__", json.dumps(kind))
