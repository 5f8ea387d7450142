"""Which channels matter? Ranked by a measure, selected, and followed through weights, activations and the residual stream."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd
import panel as pn

from workbench.analysis.weights import channel_saliency, distribution, residual_stream
from workbench.analysis.weights.axis_meaning import STREAM, list_features
from workbench.analysis.weights.cached_tables import Portrait
from workbench.analysis.weights.channel_saliency import MEASURES
from workbench.models.anatomy import Anatomy, AnatomyError
from workbench.views.weights import channel_saliency as views
from workbench.views.weights import distribution as distribution_views
from workbench.views.weights import residual_stream as residual_views
from workbench.widgets.base.background_figure import Study
from workbench.widgets.base.component import PLOT_CONFIG, Component, FigureFrame, choose_theme, render_chosen_css
from workbench.widgets.base.controls import BESIDE
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.marks import ChannelInput, list_brushed_points
from workbench.widgets.base.markup import render_small_note

FOLLOWED = 6  # channels that the figures below the curve show
WIDE = 4096  # columns from which on measures that invert the second moment are computed only when asked for
CHEAP = [name for name in MEASURES if name != "removal_cost"]
BRUSH = PLOT_CONFIG | {"modeBarButtons": [["toImage", "zoom2d", "select2d", "resetScale2d"]]}
NONE_CHOSEN = "Select channels: draw a box around points of the first figure, or type their numbers into Marked channels."
NOT_READ = "Inputs have not been measured yet: press Run calibration."


class SaliencyView(Component):
    """Rank the input channels of a layer by a measure; those that are marked are followed, and marked in all other views.

    Example:
        >>> import workbench as wb
        >>> view = wb.SaliencyView(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", threaded=False)
        >>> len(view.table), view.measure.value
        (768, 'column_energy')
    """

    watches = ("choice", "results", "selection")

    def build(self) -> pn.viewable.Viewable:
        """Measure, marks and reading above; curve, standing, weights and stream below."""
        self.measure = pn.widgets.Select(
            label="Measure",
            options={how.label: name for name, how in MEASURES.items()},
            value="output_energy" if self.session.shared.is_calibrated else "column_energy",
            description="Measure of saliency, from weights, inputs or both.",
            width=230,
        )
        self.channels = self.part(ChannelInput)
        self.read = pn.widgets.Button(
            label="Run calibration",
            description="Run the calibration text through the model and store the second moments of all inputs.",
            stylesheets=[render_chosen_css()],
            margin=BESIDE,
        )
        self.most = pn.widgets.Button(
            label="Mark the most salient",
            description="Mark the top 1 % of the channels, at most six.",
            stylesheets=[render_chosen_css()],
            margin=BESIDE,
        )
        self.read.on_click(lambda _: self.notices.guard(self._read))
        self.most.on_click(lambda _: self.notices.guard(self._mark_most))
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.jobs.view.visible = False
        self.table = pd.DataFrame()
        self.curve, self.standing, self.columns, self.stream = (FigureFrame() for _ in range(4))
        self.curve.plot.config = BRUSH
        self.curve.plot.param.watch(lambda event: self.notices.guard(lambda: self._brushed(event)), "selected_data")
        self.measure.param.watch(lambda _: self.notices.guard(self.refresh), "value")
        self.meaning = pn.pane.HTML("", margin=(0, 10), sizing_mode="stretch_width")
        controls = pn.FlexBox(self.measure, self.channels.view, self.most, self.read)
        frames = pn.Column(self.curve, self.standing, self.columns, self.stream, sizing_mode="stretch_width")
        self.study = Study(frames, self.notices, threaded=self.threaded)
        return pn.Column(controls, self.meaning, self.jobs, self.study, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """All four figures for the selected layer, measure and marks."""
        self.read.visible = not self.session.shared.is_calibrated
        self.meaning.object = render_small_note(MEASURES[self.measure.value].meaning)
        weight = self.session.portrait()
        marks = self.session.selection.channels[:FOLLOWED]
        computations = [*self._shares(weight), *self._groups(weight), *_list_range_tables(weight, marks)]
        self.study.run(computations, self._draw, at_once=weight.is_light)

    def _shares(self, weight: Portrait) -> list[Callable[[], pd.DataFrame]]:
        """One table: the measures of all channels; a costly one of a wide layer only once it has been asked for."""
        shared, layer, measure_name = self.session.shared, self.session.layer, self.measure.value
        stats = shared.stats().get(layer) if shared.is_calibrated else None

        def parts() -> Iterator[pd.DataFrame]:
            for name, how in MEASURES.items():
                others = (shared.calibration,) if how.needs_stats else ()
                cheap = name in (measure_name, *CHEAP) or weight.shape[1] < WIDE
                if (stats is not None or not how.needs_stats) and (cheap or weight.has(name, *others)):
                    yield weight.table(name, partial(channel_saliency.tabulate_saliency, stats=stats, names=[name]), *others)[
                        [name]
                    ]

        return [lambda: pd.concat([pd.DataFrame({"channel": range(weight.shape[1])}), *parts()], axis=1)]

    def _groups(self, weight: Portrait) -> list[Callable[[], Any]]:
        """The share of each channel in the groups of a split, where there is a result."""
        result = self.session.result
        return [lambda: None if result is None else channel_saliency.compute_group_shares(result.packed, weight.weight.float())]

    def _draw(self, table: pd.DataFrame, groups: Any, chosen: pd.DataFrame | None, everything: pd.DataFrame | None) -> None:
        """All four figures."""
        self.table, marks = table, self.session.selection.channels
        if self.measure.value in self.table:
            self.ranked = channel_saliency.rank_channels(self.table, self.measure.value)
            self.curve.draw(views.draw_saliency_curve(self.ranked, self.measure.value, marks, groups, theme=choose_theme()))
        else:
            self.curve.say("Which channels matter most for the output?", NOT_READ)
        self.most.disabled = self.measure.value not in self.table
        self._follow(marks[:FOLLOWED], chosen, everything)

    def _follow(self, marks: tuple[int, ...], chosen: pd.DataFrame | None, everything: pd.DataFrame | None) -> None:
        """What is known of the marked channels."""
        questions = ("Do all measures agree on these channels?", "What do the weights of these channels look like?")
        if chosen is None or everything is None:
            for frame, question in zip((self.standing, self.columns), questions, strict=True):
                frame.say(question, NONE_CHOSEN)
            written = self.session.selection.rows[:FOLLOWED]
            if written and list_features(self.session.model.layer(self.session.layer)).get("rows", ("",))[0] == STREAM:
                self._stream(written, rows=True)
            else:
                self.stream.say(residual_views.STREAM_QUESTION, NONE_CHOSEN)
            return
        self.standing.draw(
            views.draw_channel_measures(
                channel_saliency.tabulate_channel_ranks(self.table, marks), len(self.table), theme=choose_theme()
            )
        )
        self.columns.draw(distribution_views.draw_column_bands(chosen, everything, theme=choose_theme()))
        self._stream(marks)

    def _stream(self, marks: tuple[int, ...], *, rows: bool = False) -> None:
        """Where the channels go, or the `rows` that write them; a family whose stream is not known is a sentence."""
        shared, layer = self.session.shared, self.session.layer
        try:
            structure: Anatomy = residual_stream.read_model_anatomy(self.session.model)
        except AnatomyError as error:
            self.stream.say(
                residual_views.STREAM_QUESTION,
                f"Channels of this model family cannot be followed from layer to layer: {error.why}.",
            )
            return
        if not rows and not residual_stream.is_stream_reader(structure, layer):
            table = residual_stream.tabulate_inner_channels(self.session.model, structure, layer, marks, shared.sketch)
            self.stream.draw(residual_views.draw_inner_channels(table, theme=choose_theme()))
        elif not shared.is_sketched:
            self.stream.say(
                residual_views.STREAM_QUESTION, "The layers are still being read; the layer map shows how far that is."
            )
        else:
            residual = shared.stream()
            self.stream.draw(
                residual_views.draw_residual_stream(
                    residual, residual_stream.tabulate_stream_channels(residual, marks), theme=choose_theme()
                )
            )

    def _brushed(self, event: Any) -> None:
        """Mark the channels inside the box."""
        places = list_brushed_points(event)
        if places and self.curve.figure is not None:
            self.live.mark(channels=[int(self.ranked["channel"].iloc[position]) for position in places])

    def _mark_most(self) -> None:
        count = min(FOLLOWED, max(1, round(views.TOP * len(self.ranked))))
        self.live.mark(channels=self.ranked["channel"].head(count).tolist())

    def _read(self) -> None:
        self.jobs.view.visible = True
        self.read.disabled = True
        self.jobs.run(self.session.shared.stats_steps, "reading the calibration text", ended=lambda _: self._calibration_read())

    def _calibration_read(self) -> None:
        self.read.disabled = False
        self.jobs.view.visible = not self.session.shared.is_calibrated
        if self.session.shared.is_calibrated:
            self.measure.value = "output_energy"
        self.live.announce("results")


def _list_range_tables(weight: Portrait, marks: Sequence[int]) -> list[Callable[[], pd.DataFrame | None]]:
    """Two tables: ranges of the weights of marked channels, and of all weights; None each where nothing is marked."""
    if not marks:
        return [lambda: None, lambda: None]
    places = list(marks)
    return [
        lambda: distribution.tabulate_ranges(weight.weight[:, places], "column").assign(column=places),
        lambda: weight.table("range of all", lambda w: distribution.tabulate_ranges(w.reshape(-1, 1), "column")),
    ]
