"""A text with selectable tokens: each is a button; Tab moves to one of them and the arrow keys to the others."""

from collections.abc import Callable
from typing import Any

import panel as pn
import param

TOKEN_BUTTONS_JS = """
export function render({ model }) {
  const box = document.createElement('div')
  const all = () => [...box.querySelectorAll('button[data-place]')]
  const focus = (button) => {
    all().forEach((other) => { other.tabIndex = -1 })
    button.tabIndex = 0
    button.focus()
  }
  const show = () => {
    const held = box.getRootNode().activeElement?.dataset?.place
    box.innerHTML = model.object
    const again = held === undefined ? null : box.querySelector(`button[data-place="${held}"]`)
    if (again) focus(again)
  }
  box.addEventListener('click', (event) => {
    const button = event.target.closest('button[data-place]')
    if (button) model.send_msg(Number(button.dataset.place))
  })
  box.addEventListener('keydown', (event) => {
    const buttons = all(), at = buttons.indexOf(event.target)
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: buttons.length - 1 }[event.key]
    if (at < 0 || to === undefined) return
    event.preventDefault()
    if (buttons[to]) focus(buttons[to])
  })
  model.on('object', show)
  show()
  return box
}
"""


class Tokens(pn.custom.JSComponent):
    """`object` is HTML with a button for every token, as `views.text.marked` writes it; `pick` is called with a token's place."""

    _esm = TOKEN_BUTTONS_JS

    object = param.String(default="")

    def __init__(self, pick: Callable[[int], Any], **settings: Any) -> None:
        super().__init__(**{"sizing_mode": "stretch_width", **settings})
        self._pick = pick

    def _handle_msg(self, data: Any) -> None:
        """A token was chosen in the browser."""
        self._pick(int(data))
