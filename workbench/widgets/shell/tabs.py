"""The components of the explorer: one line each, in its section. A tab is built when it is first opened."""

from collections.abc import Mapping
from typing import Any

import panel as pn
import param

from workbench.widgets.base.component import Component
from workbench.widgets.decisions.bit_ledger import LedgerView
from workbench.widgets.decisions.pareto_painter import BudgetPainter
from workbench.widgets.decisions.quant_card import CardView
from workbench.widgets.decisions.scaling_law import ExpectationsView
from workbench.widgets.decisions.squeeze import SqueezeView
from workbench.widgets.elements.tab_bar import TabBar
from workbench.widgets.method.calibration_mixture import CalibrationView
from workbench.widgets.method.codebook_microscope import CodebookMicroscope
from workbench.widgets.method.method_view import MethodView
from workbench.widgets.predictions.generation import TextComparison
from workbench.widgets.predictions.kv_cache import KVCacheView
from workbench.widgets.predictions.layer_errors import LayerErrors
from workbench.widgets.predictions.layer_speed import SpeedView
from workbench.widgets.predictions.pinned import PinnedView
from workbench.widgets.predictions.what_if import WhatIfView
from workbench.widgets.shell.history import HistoryView
from workbench.widgets.shell.layer_browser import LayerTable
from workbench.widgets.shell.run_bar import RunBar
from workbench.widgets.weights.channel_saliency import SaliencyView
from workbench.widgets.weights.weight_inspector import WeightInspector

# by section, one line each; every class takes what `Component` takes
TABS: dict[str, dict[str, type[Component]]] = {
    "See": {
        "Weights": WeightInspector,
        "Saliency": SaliencyView,
        "Layers": LayerTable,
    },
    "Quantize": {
        "Method": MethodView,
        "Codebook": CodebookMicroscope,
        "Error": LayerErrors,
        "Ledger": LedgerView,
        "Calibration": CalibrationView,
    },
    "Compare": {
        "Text": TextComparison,
        "What-if": WhatIfView,
        "Pinned": PinnedView,
        "Speed": SpeedView,
        "KV cache": KVCacheView,
    },
    "Decide": {
        "Budget": BudgetPainter,
        "Expectations": ExpectationsView,
        "Card": CardView,
        "History": HistoryView,
    },
}
# across the top of the page, above layers, tabs and bench
STRIPS: tuple[type[Component], ...] = (SqueezeView, RunBar)

Kinds = Mapping[str, Mapping[str, type[Component]]]


class Tabs(pn.viewable.Viewer):
    """Components by section and title, of which only the one in front is drawn; `front` is its title, the first one unless it is
    a title.

    A section that is left comes back with the tab that was in front.
    """

    front = param.String(default="")

    def __init__(self, owner: Component, kinds: Kinds = TABS, front: str = "") -> None:
        self.kinds = {title: kind for section_kinds in kinds.values() for title, kind in section_kinds.items()}
        self.sections = {title: section for section, section_kinds in kinds.items() for title in section_kinds}
        super().__init__(front=front if front in self.kinds else next(iter(self.kinds)))
        self.owner = owner
        self.built: dict[str, Component] = {}
        self.last = {section: next(iter(section_kinds)) for section, section_kinds in kinds.items()}
        self.section = TabBar(label="Sections", options=list(kinds), strong=True, visible=len(kinds) > 1)
        self.tab = TabBar(styles={"flex": "1 1 auto"})
        self.front_pane = pn.Column(sizing_mode="stretch_width")
        self.section.param.watch(lambda event: self.param.update(front=self.last[event.new]), "value")
        self.tab.param.watch(lambda event: self.param.update(front=event.new), "value")
        self.param.watch(lambda _: self._look(), "front")
        owner.live.param.watch(self._on_tab, "front")
        bars = pn.FlexBox(self.section, self.tab, align_items="end", sizing_mode="stretch_width")
        self.view = pn.Column(bars, self.front_pane, sizing_mode="stretch_width")
        self._look()

    def __getitem__(self, title: str) -> Any:
        """The component of one tab, built now where it has never been in front."""
        if title not in self.built:
            self.built[title] = self.owner.part(self.kinds[title])
            self.built[title].look(title == self.front)
        return self.built[title]

    def _on_tab(self, event: Any) -> None:
        """Bring the tab to the front that a component asks for; the same one may be asked for again."""
        if event.new:
            self.front = event.new if event.new in self.kinds else self.front
            self.owner.live.front = ""

    def _look(self) -> None:
        """Only the tab in front is drawn."""
        section = self.sections[self.front]
        self.last[section] = self.front
        self.section.value = section
        titles = [title for title, its in self.sections.items() if its == section]
        self.tab.param.update(label=f"Views in {section}", options=titles, value=self.front)
        for title, part in self.built.items():
            part.look(title == self.front)
        self.front_pane[:] = []
        self.owner.notices.guard(lambda: self.front_pane.append(self[self.front].view))

    def __panel__(self) -> pn.viewable.Viewable:
        return self.view
