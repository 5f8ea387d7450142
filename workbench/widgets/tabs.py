"""Which components the explorer has: one line each. A tab is built when it first comes to the front."""

from typing import Any

import panel as pn
import param

from workbench.widgets.cache_view import CacheView
from workbench.widgets.calibration_view import CalibrationView
from workbench.widgets.card_view import CardView
from workbench.widgets.component import Component, chosen
from workbench.widgets.expectations_view import ExpectationsView
from workbench.widgets.history import HistoryView
from workbench.widgets.layer_browser import LayerTable
from workbench.widgets.method import MethodView
from workbench.widgets.results import ErrorView, LedgerView
from workbench.widgets.speed import SpeedView
from workbench.widgets.squeeze import SqueezeView
from workbench.widgets.text_comparison import TextComparison
from workbench.widgets.weight_inspector import WeightInspector

# every class takes `live, notices, threaded=...`, as Component does; a module of its own and a line here add one
TABS: dict[str, type[Component]] = {
    "Weights": WeightInspector,
    "Error": ErrorView,
    "Ledger": LedgerView,
    "Method": MethodView,
    "Text": TextComparison,
    "Speed": SpeedView,
    "Table": LayerTable,
    "History": HistoryView,
    "Calibration": CalibrationView,
    "KV cache": CacheView,
    "Expectations": ExpectationsView,
    "Card": CardView,
}
# across the top of the page, above layers, tabs and bench
STRIPS: tuple[type[Component], ...] = (SqueezeView,)


class Tabs(pn.viewable.Viewer):
    """The components of `TABS`, of which only the one in front is drawn; `front` is its title."""

    front: Any = param.Selector(default=next(iter(TABS)), objects=list(TABS))

    def __init__(self, owner: Component) -> None:
        super().__init__()
        self.owner = owner
        self.built: dict[str, Component] = {}
        self.places = {title: pn.Column(sizing_mode="stretch_width") for title in TABS}
        self.view = pn.Tabs(*self.places.items(), dynamic=True, sizing_mode="stretch_width", stylesheets=[chosen()])
        self.view.param.watch(lambda event: self.param.update(front=list(TABS)[event.new]), "active")
        self.param.watch(lambda _: self._look(), "front")
        owner.live.param.watch(self._asked, "front")
        self._look()

    def __getitem__(self, title: str) -> Any:
        """The component of one tab, built now where it has never been in front."""
        if title not in self.built:
            self.built[title] = self.owner.part(TABS[title])
            self.built[title].look(title == self.front)
            self.places[title][:] = [self.built[title]]
        return self.built[title]

    def _asked(self, event: Any) -> None:
        """Bring the tab to the front that a component asks for; the same one may be asked for again."""
        if event.new:
            self.front = event.new
            self.owner.live.front = ""

    def _look(self) -> None:
        """Only the tab in front is drawn."""
        self.view.active = list(TABS).index(self.front)
        for title, part in self.built.items():
            part.look(title == self.front)
        self.owner.notices.guard(lambda: self[self.front])

    def __panel__(self) -> pn.viewable.Viewable:
        return self.view
