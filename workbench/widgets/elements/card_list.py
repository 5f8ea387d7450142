"""Cards to choose one from: each is a button, one of them is reached by Tab and the others by the arrow keys.

A card whose words change is changed in place, so that a click is never lost to one that is being drawn.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import panel as pn
import param

from workbench.widgets.base.component import choose_theme

ESM = """
const STEPS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -Infinity, End: Infinity }
const LINES = ['figures', 'summary', 'source']

export function render({ model }) {
  const list = document.createElement('div')
  list.className = 'list'
  list.setAttribute('role', 'toolbar')
  list.setAttribute('aria-orientation', 'vertical')
  let buttons = []

  const build = () => {
    buttons = []
    const groups = new Map()
    model.cards.forEach((card, at) => {
      if (!groups.has(card.group)) {
        const heading = document.createElement('h3')
        const dot = document.createElement('span')
        dot.className = 'dot'
        dot.style.background = card.color
        dot.setAttribute('aria-hidden', 'true')
        heading.append(dot, card.group)
        groups.set(card.group, heading)
        list.append(heading)
      }
      const button = document.createElement('button')
      button.type = 'button'
      button.dataset.key = card.key
      button.setAttribute('aria-describedby', `details-${at}`)
      const title = document.createElement('b')
      const details = document.createElement('span')
      details.id = `details-${at}`
      details.append(...LINES.map(name => Object.assign(document.createElement('span'), { className: name })))
      button.append(title, details)
      list.append(button)
      buttons.push(button)
    })
  }
  const show = () => {
    list.setAttribute('aria-label', model.label)
    if (buttons.map(button => button.dataset.key).join() !== model.cards.map(card => card.key).join()) {
      list.replaceChildren()
      build()
    }
    const chosen = model.cards.findIndex(card => card.key === model.value)
    buttons.forEach((button, at) => {
      const card = model.cards[at]
      button.setAttribute('aria-label', card.title)
      button.querySelector('b').textContent = card.title
      LINES.forEach(name => {
        const line = button.querySelector('.' + name)
        if (line.textContent !== card[name]) line.textContent = card[name]
      })
      button.setAttribute('aria-pressed', at === chosen)
      button.tabIndex = at === Math.max(chosen, 0) ? 0 : -1
    })
  }
  list.addEventListener('click', event => {
    const button = event.target.closest('button')
    if (button) model.send_msg(button.dataset.key)
  })
  list.addEventListener('keydown', event => {
    const step = STEPS[event.key], at = buttons.indexOf(event.target)
    if (step === undefined || at < 0) return
    event.preventDefault()
    buttons[Math.max(0, Math.min(buttons.length - 1, at + step))].focus()
  })
  const reveal = () => {
    const button = buttons.find(button => button.dataset.key === model.value)
    if (button && !list.matches(':focus-within')) {
      list.scrollTop = button.offsetTop - list.offsetTop - (list.clientHeight - button.clientHeight) / 2
    }
  }
  model.on(['cards', 'label'], show)
  model.on('value', () => { show(); reveal() })
  show()
  model.on('after_layout', reveal)
  return list
}
"""


@dataclass(frozen=True)
class Card:
    """A card under the heading `group`, which has a dot of `color`; `key` is what choosing it says, the rest are its lines."""

    key: str
    group: str
    color: str
    title: str
    figures: str
    summary: str
    source: str


class CardList(pn.custom.JSComponent):
    """Cards in a list of `height` pixels that scrolls; `pick` is called with the key of the one that is chosen.

    `value` is the key of the one that stands out, `label` says what is chosen, for those who cannot see the list.
    """

    _esm = ESM

    label = param.String(default="")
    cards = param.List(default=[])
    value = param.String(default="")

    def __init__(self, pick: Callable[[str], Any], height: int, **settings: Any) -> None:
        super().__init__(**{"sizing_mode": "stretch_width", **settings})
        self._pick = pick
        self.stylesheets = [*self.stylesheets, _render_card_list_css(height)]

    def fill(self, cards: list[Card], value: str) -> None:
        """Show these cards, of which one stands out."""
        self.param.update(cards=[asdict(card) for card in cards], value=value)

    def _handle_msg(self, data: Any) -> None:
        """A card was chosen in the browser."""
        self._pick(str(data))


def _render_card_list_css(height: int) -> str:
    """The page's colours; what is chosen has a frame, and what does not fit into `height` pixels is scrolled to."""
    colours = choose_theme()
    return (
        f".list{{max-height:{height}px;overflow-y:auto;padding:2px}}"
        f".list h3{{font-size:0.8rem;margin:6px 0 2px;color:{colours.muted};font-weight:600}}"
        ".list .dot{display:inline-block;width:10px;height:10px;border-radius:50%;margin-right:6px}"
        f".list button{{display:block;width:100%;text-align:left;font:inherit;font-size:0.8rem;line-height:1.35;cursor:pointer;"
        f"color:{colours.text};background:{colours.surface};border:1px solid {colours.border};border-radius:8px;"
        "padding:5px 8px;margin:0 0 4px}"
        f".list button:hover{{background:{colours.raised}}}"
        f".list button[aria-pressed=true]{{border-color:{colours.action};box-shadow:inset 3px 0 0 {colours.action};"
        f"background:{colours.raised}}}"
        f".list button:focus-visible{{outline:2px solid {colours.accent};outline-offset:-1px}}"
        ".list b{font-size:0.9rem} .list button span span{display:block}"
        f".list .source{{color:{colours.muted};font-size:0.72rem}} .list .figures:empty,.list .source:empty{{display:none}}"
    )
