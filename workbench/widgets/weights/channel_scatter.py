"""Which channels are large in weights, inputs and errors? One point a channel; a box or a click marks them everywhere."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import panel as pn

from workbench.analysis.weights import raster
from workbench.analysis.weights.channel_saliency import tabulate_channel_errors
from workbench.errors import WorkbenchError
from workbench.views.holoviews_style import name_axes
from workbench.views.weights import channel_scatter as views
from workbench.views.weights.channel_scatter import ChannelPoints
from workbench.widgets.base.component import choose_theme
from workbench.widgets.base.controls import PLAIN_MARGIN, build_action_button
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.marks import MAX_RANGE_NUMBERS
from workbench.widgets.base.raster_frame import Ends, RasterFrame, RasterPane
from workbench.widgets.weights.weight_section import WeightSection

NOT_READ = "Inputs have not been measured yet: press Run calibration."
SCATTER = "channels"


class ChannelScatter(WeightSection):
    """Look at all input channels of a layer at once: second moment over weight rms, coloured by their share of the output error.

    A box or a click marks channels for all components.

    Example:
        >>> import workbench as wb
        >>> view = wb.ChannelScatter(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", threaded=False)
        >>> view.session.shared.stats()[view.session.layer].moment.shape  # measures the inputs
        torch.Size([768, 768])
        >>> view.refresh()
        >>> len(view.frame.figure.table)
        768
    """

    def layout(self) -> pn.viewable.Viewable:
        """The picture, and a button where inputs have not been measured."""
        what = "Run the calibration text through the model and store the second moments of all inputs."
        self.read = self.does(build_action_button("Run calibration", what, 140, margin=PLAIN_MARGIN), self._read)
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.jobs.view.visible = False
        axes = name_axes("root mean square of the channel's weights", "second moment of its input")
        pane = RasterPane(
            partial(views.draw_channel_points, axes=axes),
            partial(views.draw_marked_channels, axes=axes),
            brushed=lambda x, y: self.notices.guard(lambda: self._brush(x, y)),
            tapped=lambda x, y: self.notices.guard(lambda: self._tap(x, y)),
        )
        self.frame = RasterFrame({SCATTER: pane})
        self.points: ChannelPoints | None = None
        return pn.Column(self.read, self.jobs, self.frame, sizing_mode="stretch_width")

    def computations(self) -> list[Callable[[], Any]]:
        """Size, input and error of each channel, once inputs have been measured."""
        shared, layer, before, after = self.session.shared, self.session.layer, self.original, self.quantized

        def compute() -> pd.DataFrame | None:
            if not shared.is_calibrated:
                return None

            def sum_errors(quantized: Any) -> pd.DataFrame:
                read = raster.read_difference(quantized, before.weight)
                return pd.DataFrame({"error": raster.sum_column_energies(read, before.shape)})

            errors = None if after is None else after.table("column errors", sum_errors, before.content_key)["error"].to_numpy()
            moment = shared.stats()[layer].moment.diagonal()
            return tabulate_channel_errors(shared.sketch(layer).col_energy, before.shape[0], moment, errors)

        return [compute]

    def draw(self, table: pd.DataFrame | None) -> None:
        """One point a channel, or what to do first."""
        self.read.visible = table is None
        if table is None:
            self.points = None
            self.frame.say(views.SCATTER_QUESTION, NOT_READ)
            return
        theme = choose_theme()
        if self.points is None or self.points.theme is not theme or not self.points.table.equals(table):
            self.points = ChannelPoints(table, theme)
        shown = table.sort_values("error_share" if "error_share" in table else "second_moment", ascending=False, kind="stable")
        marks = (self.session.selection.channels, self.points)
        self.frame.draw(views.SCATTER_QUESTION, views.describe_channels(table), {SCATTER: self.points}, marks, shown)

    def _brush(self, x: Ends, y: Ends) -> None:
        """Mark the channels inside a box."""
        if self.points is None:
            return
        across, up = views.locate_points(self.points.table)
        inside = np.flatnonzero((across >= x[0]) & (across <= x[1]) & (up >= y[0]) & (up <= y[1]))
        if len(inside) > MAX_RANGE_NUMBERS:
            raise WorkbenchError(f"the box holds {len(inside):,} channels; mark at most {MAX_RANGE_NUMBERS:,} at once.")
        if len(inside):
            self.live.mark(channels=inside.tolist())

    def _tap(self, x: float, y: float) -> None:
        """Mark the channel next to the place that was clicked."""
        if self.points is None or min(x, y) <= 0:
            return
        places = views.locate_points(self.points.table)
        spans = [np.ptp(np.log(values)) or 1.0 for values in places]
        pairs = zip(places, (x, y), spans, strict=True)
        distance = sum(np.square((np.log(values) - np.log(at)) / span) for values, at, span in pairs)
        self.live.mark(channels=[int(np.argmin(distance))])

    def _read(self) -> None:
        self.jobs.view.visible, self.read.disabled = True, True
        self.jobs.run(self.session.shared.stats_steps, "reading the calibration text", ended=lambda _: self._calibration_read())

    def _calibration_read(self) -> None:
        self.read.disabled = False
        self.jobs.view.visible = not self.session.shared.is_calibrated
        self.live.announce("results")
