"""The toolbar: model, undo and redo, history, and on a served page the share link, theme and presentation mode."""

from collections.abc import Callable
from html import escape

import panel as pn
import param

from workbench.widgets.base.component import Component, choose_theme
from workbench.widgets.base.controls import build_action_button
from workbench.widgets.shell.session_handover import keep_session

# the keys of undo and redo, which a text field keeps for itself, and the one that ends a presentation
KEYS = """
export function render({ model }) {
  const root = document.documentElement.style
  const resize = () => { root.fontSize = model.presented ? 'TYPE' : '' }
  const heard = event => {
    if (model.presented && event.key === 'Escape') { event.preventDefault(); model.send_msg('end'); return }
    const typing = event.composedPath().some(e => ['INPUT', 'TEXTAREA', 'SELECT'].includes(e.tagName) && e.type !== 'button')
    if (typing || !(event.ctrlKey || event.metaKey)) return
    const key = event.key.toLowerCase()
    const name = key === 'y' || (key === 'z' && event.shiftKey) ? 'redo' : key === 'z' ? 'undo' : ''
    if (name) { event.preventDefault(); model.send_msg(name) }
  }
  document.addEventListener('keydown', heard)
  model.on('presented', resize)
  model.on('remove', () => document.removeEventListener('keydown', heard))
  return document.createElement('span')
}
"""
SHARE = "navigator.clipboard.writeText(window.location.href); cb_obj.origin.label = 'Link copied'"
THEME = """
const u = new URL(window.location)
u.searchParams.set('theme', '{other}')
u.searchParams.set('session', '{word}')
window.location = u
"""
PRESENTED_TYPE = "140%"  # of the root, which all type of the page follows


class Keys(pn.custom.JSComponent):
    """Tells `pressed` which of `undo`, `redo` and, while `presented`, `end` was asked for by its key, anywhere on the page; type
    is larger while `presented`."""

    _esm = KEYS.replace("TYPE", PRESENTED_TYPE)

    presented = param.Boolean(default=False)

    def __init__(self, pressed: Callable[[str], None]) -> None:
        super().__init__(width=0, height=0, margin=0)
        self.pressed = pressed

    def _handle_msg(self, msg: str) -> None:
        self.pressed(msg)


class Toolbar(Component):
    """Undo, redo and history; on a served page also share, present, light and dark. `presented` says which."""

    watches = ("choice", "selection", "results")
    waits = False
    presented = param.Boolean(default=False)

    def build(self) -> pn.viewable.Viewable:
        """One row that folds."""
        served = pn.state.curdoc is not None
        colours = choose_theme()
        name = pn.pane.HTML(
            "<div style='font-size:1.35rem;font-weight:600;overflow-wrap:anywhere'>workbench "
            f"<small style='font-weight:normal;color:{colours.muted}'>· {escape(str(self.session.model.source))}</small></div>",
            styles={"flex": "1 1 200px"},
        )
        self.undo = self._button("Undo", "Undo the last change (Ctrl+Z)", lambda: self.live.choose(self.session.undo))
        self.redo = self._button("Redo", "Redo the change (Ctrl+Shift+Z)", lambda: self.live.choose(self.session.redo))
        self.history = self._button("History", "All steps, with their branches", self._to_history)
        self.buttons: list[pn.viewable.Viewable] = [self.undo, self.redo, self.history]
        self.presenting = self._button("Present", "Show slider, texts and map only, in large type; Escape ends it", self._present)
        self.keys = Keys(self._pressed)
        page_only = [*self._page_buttons(), self.keys] if served else []
        return pn.FlexBox(name, self.undo, self.redo, self.history, *page_only, align_items="center", sizing_mode="stretch_width")

    def refresh(self) -> None:
        """Undo and redo where there is something to go to."""
        self.undo.disabled, self.redo.disabled = not self.session.can_undo, not self.session.can_redo

    def _page_buttons(self) -> list[pn.viewable.Viewable]:
        """What only a page with an address of its own can do."""
        other = "light" if choose_theme().name == "dark" else "dark"
        share = self._button("Share", "Copy a link with layer, recipe, marks and tab")
        share.js_on_click(code=SHARE)
        switch = self._button(f"{other.capitalize()} page", "Switch between light and dark mode")
        switch.js_on_click(code=THEME.replace("{other}", other).replace("{word}", keep_session(self.session)))
        self.buttons += [share, switch]
        return [share, self.presenting, switch]

    def _to_history(self) -> None:
        self.live.front = "History"

    def _present(self) -> None:
        self.presented = not self.presented
        self.presenting.label = "End" if self.presented else "Present"
        self.keys.presented = self.presented
        for button in self.buttons:
            button.visible = not self.presented

    def _pressed(self, key: str) -> None:
        if key == "end":
            self.notices.guard(self._present)
            return
        self.notices.guard(lambda: self.live.choose(self.session.redo if key == "redo" else self.session.undo))

    def _button(self, label: str, tip: str, press: Callable[[], object] | None = None) -> pn.widgets.Button:
        """One of the line."""
        button = build_action_button(label, tip, 92, margin=(5, 4), main=False)
        return button if press is None else self.does(button, press)
