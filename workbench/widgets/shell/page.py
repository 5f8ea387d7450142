"""The served page: one model for all visitors, one session for each, and no external resources."""

import dataclasses
import gc
import json
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from threading import Timer
from typing import Any
from urllib.parse import urlencode

import panel as pn

from workbench import presets
from workbench.errors import WorkbenchError
from workbench.json_value import decode, shorten_value
from workbench.memory import release_memory
from workbench.models import open_model
from workbench.recipe import Recipe
from workbench.session import Selection, Session, SharedModel
from workbench.widgets.base import panel_theme
from workbench.widgets.base.component import Component, choose_theme
from workbench.widgets.base.notices import Notices, describe, render_alert
from workbench.widgets.panel_patches.not_found_page import show_missing_addresses
from workbench.widgets.panel_patches.offline_resources import EXTENSIONS, keep_styles_local
from workbench.widgets.panel_patches.skip_redundant_relayout import skip_redundant_redraws
from workbench.widgets.panel_patches.tooltip_bounds import keep_tooltips_inside
from workbench.widgets.shell.explorer import Explorer
from workbench.widgets.shell.session_handover import take_session
from workbench.widgets.shell.tabs import STRIPS, TABS, Kinds

MAX_MARK_DIGITS = 18  # digits of a mark
RELEASE_AFTER = 10.0  # seconds

log = logging.getLogger(__name__)
MARKS = [field.name for field in dataclasses.fields(Selection)]


@cache
def open_shared_model(source: str) -> SharedModel:
    """The model that all sessions of this server work on."""
    shared = SharedModel(open_model(source))
    freeze_startup()
    return shared


@cache
def freeze_startup() -> None:
    """Let the collector pass over libraries and model, which never go: a look at all of them holds every visitor up."""
    gc.collect()
    gc.freeze()


def build_explorer_page(
    source: str,
    *,
    recipe: Recipe | None = None,
    tabs: Kinds = TABS,
    strips: Sequence[type[Component]] = STRIPS,
) -> pn.viewable.Viewable:
    """The explorer on `source` for one visitor, as its address says; `recipe` is on the bench at first."""

    def explorer() -> Explorer:
        session, query = Session(open_shared_model(source), recipe=recipe), dict[str, str]()
        wrong: Exception | None = None
        try:
            query = decode_address(pn.state.session_args)
            if (left := take_session(query.get("session", ""))) is not None and left.shared is session.shared:
                session = left
            else:
                read_address(session, query)  # before anything is drawn, so that nothing is drawn twice
        except Exception as error:  # noqa: BLE001  an address is typed by anyone; the page says what is wrong with it
            wrong = error
        screen = Explorer(session, tabs=tabs, strips=strips, front=query.get("tab", ""))
        if wrong is not None:
            screen.notices.report(wrong)
        if "session" in query:
            pn.state.onload(lambda: write_address(screen))  # a word that was used is of no use to anybody else
        screen.live.param.watch(lambda *_: write_address(screen), ["choice", "selection"])
        screen.tabs.param.watch(lambda *_: write_address(screen), "front")
        return screen

    return visit(explorer)


def visit(make: Callable[[], Component]) -> pn.viewable.Viewable:
    """A component for one visitor, everything from this host; what cannot be opened is a sentence, and no exception is lost."""
    pn.extension(*EXTENSIONS, design=panel_theme.build_design(choose_theme()))
    keep_styles_local()
    skip_redundant_redraws()
    keep_tooltips_inside()
    show_missing_addresses()
    try:
        component = make()
    except Exception as error:
        if not isinstance(error, WorkbenchError):
            log.error("a page could not be built", exc_info=error)
        return _frame_page(pn.pane.HTML(render_alert(describe(error)), sizing_mode="stretch_width"))
    pn.config.exception_handler = _build_error_reporter(component.notices)
    if pn.state.curdoc is not None and pn.state.curdoc.session_context is not None:
        pn.state.on_session_destroyed(lambda _: _release_soon())
    return _frame_page(component)


def _release_soon() -> None:
    """Give the memory of visitors who have left back to the system, once what they had at work has ended."""
    timer = Timer(RELEASE_AFTER, release)
    timer.daemon = True
    timer.start()


def release() -> None:
    """Free what nobody holds any more; a page and its parts hold each other, so they wait for the collector."""
    gc.collect()
    release_memory()


def _build_error_reporter(notices: Notices) -> Callable[[BaseException], None]:
    """Tells a visitor's notices what went wrong, without keeping the page of one who has left."""
    reference = weakref.ref(notices)

    def tell(error: BaseException) -> None:
        if (there := reference()) is not None:
            there.report(error)

    return tell


def _frame_page(body: Any) -> pn.viewable.Viewable:
    """The page around what it shows."""
    return pn.Column(
        body,
        sizing_mode="stretch_width",
        styles={**panel_theme.build_page_styles(choose_theme()), "padding": "12px", "min-height": "100vh"},
    )


def decode_address(arguments: Mapping[str, Sequence[bytes]]) -> dict[str, str]:
    """What stands in the page's address, by name; WorkbenchError for what is no text."""
    return {name: decode(values[0], f"{name} in the address", WorkbenchError) for name, values in arguments.items() if values}


def read_address(session: Session, query: Mapping[str, str]) -> None:
    """Take layer, recipe, prompt and marks from an address, so that a reload shows the same."""
    if "layer" in query:
        session.select(query["layer"])
    if "recipe" in query:
        session.use(_decode_recipe(query["recipe"]))
    if "prompt" in query:
        session.ask(query["prompt"])
    marks = {name: query[name].split(",") for name in MARKS if query.get(name)}
    if marks:
        session.mark(**{name: value if name == "layers" else _parse_marks(name, value) for name, value in marks.items()})


def write_address(explorer: Explorer) -> None:
    """Put layer, recipe, prompt, marks and tab into the page's address."""
    if pn.state.location is None:
        return
    choice = explorer.session.choice
    marks = {name: ",".join(map(str, value)) for name, value in vars(choice.selection).items() if value}
    named = {"layer": choice.layer, "recipe": _encode_recipe(choice.recipe), "prompt": choice.prompt, **marks}
    pn.state.location.search = f"?{urlencode({**named, 'tab': explorer.tabs.front, 'theme': choose_theme().name})}"


def _encode_recipe(recipe: Recipe) -> str:
    """A recipe for an address: as on the command line, or as JSON where it is composed freely."""
    return json.dumps(recipe.to_dict(), separators=(",", ":")) if recipe.name == "custom" else presets.spell(recipe)


def _decode_recipe(text: str) -> Recipe:
    """The inverse of `_encode_recipe`."""
    return Recipe.from_json(text) if text.startswith("{") else presets.parse(text)


def _parse_marks(name: str, words: list[str]) -> list[int]:
    """Marks in an address as numbers; WorkbenchError for what is none."""
    if wrong := [word for word in words if not word.isdecimal() or len(word) > MAX_MARK_DIGITS]:
        raise WorkbenchError(f"{name} in the address holds {shorten_value(wrong[0])}; it takes whole numbers, e.g. {name}=3,17.")
    return [int(word) for word in words]
