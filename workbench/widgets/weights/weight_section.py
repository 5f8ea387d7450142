"""A section of the weight inspector: statistics of the selected layer's weights, computed and then drawn."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import panel as pn
from torch import Tensor

from workbench.widgets.base.background_figure import Study
from workbench.widgets.base.component import Component


class WeightSection(Component):
    """A section over the selected layer: portraits of its `original` weights, and of `quantized` ones where there is a result."""

    watches = ("choice", "results", "run", "selection")

    def build(self) -> pn.viewable.Viewable:
        """The section's own layout, and how far its figures are while they are worked out."""
        self.study = Study(self.layout(), self.notices, threaded=self.threaded)
        return self.study.view

    def refresh(self) -> None:
        """Take up the weights, then show them."""
        result = self.session.compared.shown
        self.original = self.session.portrait()
        self.quantized = None if result is None else self.session.portrait_of(result)
        self.paint()

    def paint(self) -> None:
        """Work out what is wanted, and draw it."""
        self.study.run(self.computations(), self.draw, at_once=self.original.is_light)

    def layout(self) -> pn.viewable.Viewable:
        """Controls and figures."""
        raise NotImplementedError

    def computations(self) -> list[Callable[[], Any]]:
        """What the figures need, each found by a call that may come from another thread."""
        raise NotImplementedError

    def draw(self, *tables: Any) -> None:
        """Draw what was wanted."""
        raise NotImplementedError

    def both(self, name: str, find: Callable[[Tensor], pd.DataFrame]) -> list[Callable[[], pd.DataFrame | None]]:
        """One table of the original and, where there is a result, of the quantized weights."""
        before, after = self.original, self.quantized
        return [lambda: before.table(name, find), lambda: None if after is None else after.table(name, find)]

    def marked(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Marked rows and columns."""
        return self.session.selection.rows, self.session.selection.channels
