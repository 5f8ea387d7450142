"""Which components the explorer has: one line each. A tab is built when it first comes to the front."""

from collections.abc import Mapping
from typing import Any

import panel as pn
import param

from workbench.widgets.budget import BudgetPainter
from workbench.widgets.cache_view import CacheView
from workbench.widgets.calibration_view import CalibrationView
from workbench.widgets.card_view import CardView
from workbench.widgets.codebook import CodebookMicroscope
from workbench.widgets.comparison import ComparisonView
from workbench.widgets.component import Component, chosen
from workbench.widgets.expectations_view import ExpectationsView
from workbench.widgets.history import HistoryView
from workbench.widgets.layer_browser import LayerTable
from workbench.widgets.ledger import LedgerView
from workbench.widgets.method import MethodView
from workbench.widgets.results import ErrorView
from workbench.widgets.salience import SalienceView
from workbench.widgets.speed import SpeedView
from workbench.widgets.squeeze import SqueezeView
from workbench.widgets.text_comparison import TextComparison
from workbench.widgets.weight_inspector import WeightInspector
from workbench.widgets.what_if import WhatIfView

# every class takes `live, notices, threaded=...`, as Component does; a module of its own and a line here add one
TABS: dict[str, type[Component]] = {
    "Weights": WeightInspector,
    "Salience": SalienceView,
    "Codebook": CodebookMicroscope,
    "Error": ErrorView,
    "Ledger": LedgerView,
    "Method": MethodView,
    "What-if": WhatIfView,
    "Budget": BudgetPainter,
    "Text": TextComparison,
    "Compare": ComparisonView,
    "Speed": SpeedView,
    "Table": LayerTable,
    "History": HistoryView,
    "Calibration": CalibrationView,
    "KV cache": CacheView,
    "Expectations": ExpectationsView,
    "Card": CardView,
}
# titles go on in a second line where the page is narrow: a row to scroll hides the last ones
WRAPPED = ":host(.bk-above) .bk-headers-wrapper{flex-wrap:wrap;overflow:visible} .bk-header{overflow:visible}"
# across the top of the page, above layers, tabs and bench
STRIPS: tuple[type[Component], ...] = (SqueezeView,)


class Tabs(pn.viewable.Viewer):
    """Components by title, of which only the one in front is drawn; `front` is its title, the first one unless it is a title."""

    front = param.String(default="")

    def __init__(self, owner: Component, kinds: Mapping[str, type[Component]] = TABS, front: str = "") -> None:
        self.titles = list(kinds)
        super().__init__(front=front if front in kinds else self.titles[0])
        self.owner, self.kinds = owner, kinds
        self.built: dict[str, Component] = {}
        self.places = {title: pn.Column(sizing_mode="stretch_width") for title in kinds}
        self.view = pn.Tabs(*self.places.items(), dynamic=True, sizing_mode="stretch_width", stylesheets=[chosen(), WRAPPED])
        self.view.param.watch(lambda event: self.param.update(front=self.titles[event.new]), "active")
        self.param.watch(lambda _: self._look(), "front")
        owner.live.param.watch(self._asked, "front")
        self._look()

    def __getitem__(self, title: str) -> Any:
        """The component of one tab, built now where it has never been in front."""
        if title not in self.built:
            self.built[title] = self.owner.part(self.kinds[title])
            self.built[title].look(title == self.front)
            self.places[title][:] = [self.built[title]]
        return self.built[title]

    def _asked(self, event: Any) -> None:
        """Bring the tab to the front that a component asks for; the same one may be asked for again."""
        if event.new:
            self.front = event.new if event.new in self.titles else self.front
            self.owner.live.front = ""

    def _look(self) -> None:
        """Only the tab in front is drawn."""
        self.view.active = self.titles.index(self.front)
        for title, part in self.built.items():
            part.look(title == self.front)
        self.owner.notices.guard(lambda: self[self.front])

    def __panel__(self) -> pn.viewable.Viewable:
        return self.view
