"""Controls that several components have, each with its label and its tooltip."""

import panel as pn

from workbench.widgets.component import chosen

BESIDE = (24, 10, 5, 10)  # a button's margin that puts it on the line of the fields beside it
PLAIN = (5, 10)


def action(label: str, description: str, width: int, *, margin: tuple[int, ...] = BESIDE) -> pn.widgets.Button:
    """The button for what a component is there for."""
    return pn.widgets.Button(
        label=label, color="primary", width=width, margin=margin, description=description, stylesheets=[chosen()]
    )


def evaluation_tokens(value: int) -> pn.widgets.IntInput:
    """How many tokens a measurement reads."""
    what = "How much of the evaluation text is read"
    return pn.widgets.IntInput(label="Tokens", value=value, start=64, end=20_000, step=256, width=110, description=what)
