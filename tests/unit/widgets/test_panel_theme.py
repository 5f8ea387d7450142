"""The look of Panel's own fields: behind Panel's rules, in the colours of the mode."""

import panel as pn
import pytest

from workbench.views.theme import DARK, LIGHT, Theme
from workbench.widgets.base.panel_theme import build_design, render_fields_css


@pytest.mark.parametrize(("colours", "name"), [(LIGHT, "default"), (DARK, "dark")], ids=["light", "dark"])
def test_our_rules_stand_behind_panels_own(colours: Theme, name: str) -> None:
    sheets = build_design(colours)(theme=name).params(pn.widgets.Select(options=["a"]))[0]["stylesheets"]
    own = [place for place, sheet in enumerate(sheets) if sheet == render_fields_css(colours)]
    assert own == [len(sheets) - 1], "the last one wins"
    assert any("native" in str(getattr(sheet, "url", sheet)) for sheet in sheets[:-1])


def test_arrows_are_drawn_in_the_colour_of_quiet_text() -> None:
    assert DARK.muted.replace("#", "%23") in render_fields_css(DARK)
