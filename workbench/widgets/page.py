"""The served page: one model for all visitors, a session for each, everything from this host."""

from functools import cache
from typing import Any
from urllib.parse import urlencode

import panel as pn

from workbench import presets
from workbench.errors import WorkbenchError
from workbench.models import open_model
from workbench.session import Session, SharedModel
from workbench.widgets.component import theme
from workbench.widgets.explorer import Explorer
from workbench.widgets.offline import EXTENSIONS, local_styles


@cache
def shared_model(source: str) -> SharedModel:
    """The model that all sessions of this server work on."""
    return SharedModel(open_model(source))


def page(source: str) -> pn.viewable.Viewable:
    """The explorer on `source` for one visitor; a model that cannot be opened is a sentence, not a traceback."""
    pn.extension(*EXTENSIONS)
    local_styles()
    try:
        session = Session(shared_model(source))
        read_address(session)
        explorer = Explorer(session)
        explorer.live.param.watch(lambda *_: write_address(session), "choice")
        body: Any = explorer
    except WorkbenchError as error:
        body = pn.pane.Alert(f"{error}", alert_type="danger", sizing_mode="stretch_width")
    colours = theme()
    return pn.Column(
        header(source),
        body,
        sizing_mode="stretch_width",
        styles={"background": colours.page, "color": colours.text, "padding": "12px", "min-height": "100vh"},
    )


def header(source: str) -> pn.viewable.Viewable:
    """Title, model and the switch between light and dark."""
    colours = theme()
    other = "light" if colours.name == "dark" else "dark"
    name = pn.pane.HTML(
        "<div style='font-size:1.35rem;font-weight:600'>workbench "
        f"<small style='font-weight:normal;color:{colours.muted}'>· {source}</small></div>",
        sizing_mode="stretch_width",
    )
    switch = pn.widgets.Button(label=f"{other.capitalize()} page", variant="outline", width=120)
    switch.js_on_click(code=f"const u = new URL(window.location); u.searchParams.set('theme', '{other}'); window.location = u")
    return pn.Row(name, switch, sizing_mode="stretch_width")


def read_address(session: Session) -> None:
    """Take layer, recipe and prompt from the page's address, so that a reload shows the same."""
    query = {name: values[0].decode() for name, values in pn.state.session_args.items() if values}
    if "layer" in query:
        session.select(query["layer"])
    if "recipe" in query:
        session.use(presets.parse(query["recipe"]))
    if "prompt" in query:
        session.ask(query["prompt"])


def write_address(session: Session) -> None:
    """Put layer, recipe and prompt into the page's address."""
    if pn.state.location is None:
        return
    recipe = session.recipe
    spelled = ":".join([recipe.name, ",".join(f"{key}={value}" for key, value in recipe.settings)]).rstrip(":")
    choice = {"layer": session.layer, "recipe": spelled, "prompt": session.choice.prompt, "theme": theme().name}
    pn.state.location.search = f"?{urlencode(choice)}"
