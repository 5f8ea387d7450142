"""Two texts side by side: their comparison above, every token coloured by how much the models disagree there."""

from collections.abc import Callable
from html import escape
from typing import Any

import panel as pn

from workbench.views.predictions.generation import Comparison
from workbench.views.theme import Theme
from workbench.widgets.base.component import choose_theme
from workbench.widgets.base.markup import render_heading
from workbench.widgets.elements.token_buttons import Tokens

FADED = 0.4  # opacity of what is no longer true
HINT = "Select a token to see what each model predicted there: click it, or move to it with the arrow keys and press Enter."


class TextPages(pn.viewable.Viewer):
    """The original's text and the quantized model's; one below the other where there is no room.

    With `pick` tokens can be chosen, in texts that were drawn with buttons: it is called with a token's place, from 0.
    """

    def __init__(self, pick: Callable[[int], Any] | None = None) -> None:
        super().__init__()
        self.sentence = pn.pane.HTML("", margin=(0, 10), sizing_mode="stretch_width")
        self.hint = pn.pane.HTML(f"<small>{HINT}</small>", visible=False, sizing_mode="stretch_width")
        self.picks = pick is not None
        self.left, self.right = (
            pn.pane.HTML("", margin=(2, 10), sizing_mode="stretch_width") if pick is None else Tokens(pick) for _ in range(2)
        )
        wide = {"flex": "1 1 300px", "min-width": "280px"}
        columns = [pn.Column(side, styles=wide) for side in (self.left, self.right)]
        both = pn.FlexBox(*columns, sizing_mode="stretch_width")
        self.view = pn.Column(self.sentence, both, self.hint, sizing_mode="stretch_width")

    def draw(self, shown: Comparison, name: str = "quantized", beside: str = "original") -> None:
        """Show both texts; `name` is the quantized one's title and `beside` that of what it is compared with."""
        self.sentence.object = _render_head(shown.question, shown.answer)
        self.left.object = render_text_page("original", shown.original, choose_theme(), beside)
        self.right.object = render_text_page("quantized", shown.quantized, choose_theme(), name)
        self.hint.visible = self.picks
        self._fade(1.0)

    def draw_one(self, question: str, shown: Comparison, beside: str, invitation: str) -> None:
        """Show the first text of `shown` alone, and in the place of the other one how to get something to compare."""
        self.sentence.object = _render_head(question, "Only the original is shown.")
        self.left.object = render_text_page("original", shown.original, choose_theme(), beside)
        words = f"<span class=prompt>{escape(invitation)}</span>"
        self.right.object = render_text_page("quantized", words, choose_theme(), "nothing to compare yet")
        self.hint.visible = False
        self._fade(1.0)

    def say(self, question: str, sentence: str) -> None:
        """Another sentence above what is shown."""
        self.sentence.object = _render_head(question, sentence)

    def wait(self, question: str, sentence: str) -> None:
        """Grey what is shown, which is of something else, until `draw` shows what the sentence announces."""
        self.say(question, sentence)
        self._fade(FADED)

    def clear(self, question: str, sentence: str) -> None:
        """Take the texts away: there are none of what is asked for now, and the sentence says why."""
        self.say(question, sentence)
        self.left.object = self.right.object = ""
        self._fade(1.0)

    def _fade(self, opacity: float) -> None:
        for side in (self.left, self.right):
            side.styles = {**side.styles, "opacity": str(opacity)}

    def __panel__(self) -> pn.viewable.Viewable:
        return self.view


def _render_head(question: str, sentence: str) -> str:
    """Question and sentence, in one line where there is room."""
    heading = render_heading(question, sentence)
    return f"<div style='display:flex;flex-wrap:wrap;gap:0 14px;align-items:baseline'>{heading}</div>"


def render_text_page(side: str, text: str, colours: Theme, name: str = "") -> str:
    """One text, its title `name` or else what side it is, its edge in the colour of its model.

    The first differing token stands out by colour and underline.
    """
    edge = colours.original if side == "original" else colours.quantized
    fork = f"background:{colours.action};color:{colours.contrast};text-decoration:underline;border-radius:2px;padding:0 2px"
    chosen = f"outline:2px solid {colours.accent};border-radius:2px"
    button = "all:unset;cursor:pointer;white-space:pre-wrap"
    style = (
        f"<style>.prompt{{color:{colours.muted}}} mark.fork{{{fork}}} .chosen{{{chosen}}} button{{{button}}}"
        f"button:hover{{text-decoration:underline}} button:focus-visible{{outline:2px solid {colours.action}}}</style>"
    )
    title = f"<h3 style='margin:0;font-size:1rem'>{escape(name or side)}</h3>"
    body = f"<p style='white-space:pre-wrap;font-size:0.95rem;line-height:1.35;margin:2px 0'>{text}</p>"
    frame = f"<section aria-label='{side} text' style='border-left:4px solid {edge};padding:2px 12px'>{title}{body}</section>"
    return style + frame
