"""Which method should it be? Every preset on the selected layer, as a dot and as a card; either puts it on the bench."""

import math
import time
from collections.abc import Generator, Mapping
from typing import Any

import panel as pn

from workbench import presets
from workbench.analysis.decisions.preset_trials import Trial, Tried, list_families, tabulate_trials, try_presets_steps
from workbench.jobs import Job, Status
from workbench.presets.preset import Preset
from workbench.quantizers.pipeline import needs_moment
from workbench.recipe import CUSTOM
from workbench.session import Heard
from workbench.store import Store
from workbench.views import theme as themes
from workbench.views.decisions import preset_trials as views
from workbench.widgets.base.component import Component, FigureFrame, choose_theme
from workbench.widgets.base.controls import PLAIN_MARGIN, build_action_button
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.markup import render_paragraph
from workbench.widgets.elements.card_list import Card, CardList

REDRAW_AFTER = 1.0  # seconds between drawings while presets are tried: all dots and cards are drawn each time
# pixels: of the figure and of the cards below it where other controls follow, and the least width of the figure there
LOW, NARROW = 190, 220
COMPOSED = Card(
    CUSTOM,
    "Your own",
    "transparent",
    "Composed freely",
    "",
    "Parts of your own choice, starting with those of the recipe on the bench.",
    "",
)


class RecipeGallery(Component):
    """Compare all presets on the selected layer: stored bits and error of each, as a figure and as cards to choose from.

    They are tried one after the other in the background, on some of the layer's rows; `trials` holds the results by recipe.

    Example:
        >>> import workbench as wb
        >>> gallery = wb.RecipeGallery(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", threaded=False)
        >>> gallery.frame.figure is None  # nothing has been tried yet
        True
    """

    waits = False

    def build(self) -> pn.viewable.Viewable:
        """The figure, the cards beside or below it, and the job that tries them."""
        self.trials: Mapping[str, Trial] = {}
        self.tried_for: tuple[str, bool] | None = None
        self._drawn = -math.inf  # seconds on the clock of `time.monotonic`
        self.frame = FigureFrame()
        self.height, self.width = (views.HEIGHT, views.WIDTH) if self.alone else (LOW, NARROW)  # pixels
        self.frame.plot.height = self.height  # a figure that comes later than its place takes Plotly's own height otherwise
        self.frame.plot.param.watch(lambda event: self.notices.guard(lambda: self._clicked(event.new)), "click_data")
        self.cards = CardList(
            lambda key: self.notices.guard(lambda: self.choose(key)), self.height, label="Recipes", margin=PLAIN_MARGIN
        )
        self.missing = pn.pane.HTML("", sizing_mode="stretch_width", margin=(0, 10))
        what = "Try every preset on some rows of the selected layer"
        self.go = self.does(build_action_button("Try all presets", what, None, margin=PLAIN_MARGIN, main=False), self.measure)
        self.jobs = JobPanel(self.notices, threaded=self.threaded, queue=self.session.shared.background)
        self.jobs.stop.label = "Stop"
        progress = pn.Column(self.jobs.progress, self.jobs.words, sizing_mode="stretch_width")
        self.status = pn.Row(self.jobs.stop, self.jobs.again, progress, sizing_mode="stretch_width", visible=False)
        self.is_page_drawn = pn.state.curdoc is None or pn.state.curdoc.session_context is None
        if not self.is_page_drawn:
            pn.state.onload(lambda: self.notices.guard(self._begin))
        figure = pn.Column(self.frame, sizing_mode="stretch_width", styles={"flex": "3 1 280px", "min-width": "0"})
        beside = pn.Column(self.cards, sizing_mode="stretch_width", styles={"flex": "2 1 250px", "min-width": "0"})
        return pn.Column(
            pn.FlexBox(figure, beside, sizing_mode="stretch_width"),
            self.missing,
            self.go,
            self.status,
            sizing_mode="stretch_width",
        )

    def _begin(self) -> None:
        """The page is there: begin what had to wait for it."""
        self.is_page_drawn = True
        self.refresh()

    @property
    def calibrates(self) -> bool:
        """Whether methods that need the calibration text are tried too."""
        return self.session.can_preview

    def refresh(self) -> None:
        """What is known of the selected layer; it is tried where that was not done yet."""
        if (subject := (self.session.layer, self.calibrates)) != self.tried_for:
            if self.tried_for is None or self.tried_for[0] != subject[0]:
                self.trials = {}
            self.tried_for = None
            if self.threaded and self.is_page_drawn:
                self.measure()
        self._show()

    def measure(self) -> None:
        """Try every preset on the selected layer; those first that were tried before."""
        shared, layer, calibrates = self.session.shared, self.session.layer, self.calibrates

        def steps() -> Generator[Tried | Heard, None, Mapping[str, Trial]]:
            trials: Mapping[str, Trial] = {}
            if not shared.is_calibrated:
                trials = yield from try_presets_steps(shared.model, layer, store=Store())
            if calibrates:
                trials = yield from try_presets_steps(shared.model, layer, (yield from shared.stats_steps()), Store())
            return trials

        self.tried_for = (layer, calibrates)
        self.status.visible = True
        self.go.visible = False
        self.jobs.run(steps, "trying all presets", on_step=self._on_step, ended=self._ended, latest=True)

    def choose(self, recipe: str) -> None:
        """Put a recipe on the bench, by its one word; `custom` is free composition from the parts that are there."""
        chosen = self.session.recipe.replace() if recipe == CUSTOM else presets.parse(recipe)
        self.live.choose(lambda: self.session.use(chosen))

    def _clicked(self, event: Any) -> None:
        """A dot was clicked, or something beside it."""
        points = (event or {}).get("points") or [{}]
        if (recipe := points[0].get("customdata")) is not None:
            self.frame.plot.click_data = None  # the same dot may be clicked again after an undo
            self.choose(recipe)

    def _on_step(self, job: Job[Any]) -> str | None:
        if not isinstance(tried := job.latest, Tried):
            return None
        if not self.trials or time.monotonic() - self._drawn > REDRAW_AFTER:
            self._take(tried.trials)
        return f"{len(tried.trials)} of {tried.total} recipes tried on this layer."

    def _ended(self, job: Job[Any]) -> None:
        if job.status is Status.DONE:
            self._take(job.result())
        self.status.visible = job.status is not Status.DONE and not self.jobs.waits
        self._show()

    def _take(self, trials: Mapping[str, Trial]) -> None:
        """Show what came for the selected layer; weight errors stay until there is an output error."""
        is_this_layer = self.tried_for is not None and self.tried_for[0] == self.session.layer
        if is_this_layer and trials and trials != self.trials:
            self.trials = dict(trials)
            self._show()

    def _show(self) -> None:
        """Figure, cards and the sentence about calibration."""
        self._drawn = time.monotonic()
        recipe = self.session.recipe
        table, rows = tabulate_trials(self.trials), self.session.model.layer(self.session.layer).rows
        if table.empty:
            wait = "The first dots come in a moment." if self.jobs.running else "Press Try all presets to see them on this layer."
            self.frame.say(views.QUESTION, wait)
        else:
            self.frame.draw(
                views.draw_preset_trials(
                    table, presets.spell(recipe), rows, height=self.height, width=self.width, theme=choose_theme()
                )
            )
        self.cards.fill([*_list_cards(self.trials), COMPOSED], CUSTOM if recipe.name == CUSTOM else recipe.name)
        self.go.visible = not self.trials and not self.jobs.running
        self.missing.object = "" if self.calibrates else render_paragraph(_describe_missing())


def _list_cards(trials: Mapping[str, Trial]) -> list[Card]:
    """A card for every preset, by family."""
    return [
        Card(
            preset.name,
            family.capitalize(),
            views.choose_family_color(family),
            preset.title,
            _describe_trial(preset, trials.get(presets.spell(preset().recipe()))),
            preset.summary,
            preset.source,
        )
        for family, members in list_families().items()
        for preset in members
    ]


def _describe_trial(preset: type[Preset], trial: Trial | None) -> str:
    """Stored bits, nominal bits and the error with default settings; or why there are none."""
    if trial is None:
        return f"nominal {themes.format_bits(preset().nominal_bits)} bits · not tried here yet"
    if trial.problem:
        return f"Does not fit this layer: {trial.problem}"
    error = trial.relative_error if trial.output_error is None else trial.output_error
    what = "weight error" if trial.output_error is None else "output error"
    bits = f"{themes.format_bits(trial.bits_per_weight)} stored bits ({themes.format_bits(trial.nominal_bits)} nominal)"
    return f"{bits} · {what} {themes.format_error(error)}"


def _describe_missing() -> str:
    """What to do for methods that need the calibration text."""
    methods = [preset for members in list_families().values() for preset in members]
    missing = sum(bool(needs_moment(preset().recipe())) for preset in methods)
    return (
        f"{missing} of {len(methods)} methods need the calibration text, which has not been read yet: press Quantize this layer "
        "once, and they are tried too. Until then errors are those of the weights."
    )
