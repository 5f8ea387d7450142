"""The Pareto painter: set the budget of bits, paint layers by hand, and compare the predicted with the measured KL of a plan."""

from collections.abc import Generator
from math import gcd
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import panel as pn

from workbench.analysis.decisions.layer_scores import layer_scores
from workbench.analysis.decisions.study_time import count_weights, estimate_reading_seconds
from workbench.analysis.predictions.isolated_effects import build_replacements
from workbench.analysis.predictions.sensitivity import sensitivity_steps
from workbench.analysis.predictions.suffix_replay import REPLAY_TOKENS
from workbench.intervals import make_interval_columns
from workbench.jobs import Job
from workbench.models.text import text
from workbench.presets import parse
from workbench.quantizers import quantize_model_steps
from workbench.quantizers.allocation import Allocation, Allocator, allocate
from workbench.quantizers.allocation.ranked import SCORES
from workbench.recipe import Recipe
from workbench.registry import make
from workbench.store import Store
from workbench.views import theme as themes
from workbench.views.decisions import error_budget as views
from workbench.views.layer_grid import find_layer
from workbench.widgets.base.component import Component, FigureFrame, choose_theme
from workbench.widgets.base.controls import build_action_button, build_folded_card
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.markup import render_code
from workbench.widgets.elements.slider import Slider
from workbench.widgets.predictions.what_if import describe_step

METHODS = {
    "Lagrangian": ("lagrangian", {}),
    "integer programming": ("milp", {}),
    "closed form": ("closed-form", {}),
    **{f"ranked by {name}": ("ranked", {"by": name}) for name in SCORES},
}
FREE = "chosen by the budget"
BUYS, GETS = "How much does each bit reduce the error?", "Which layers get the bits?"
POINTS = 30


class BudgetPainter(Component):
    """Find the best recipe for every layer under a budget of bits, by slider, method and brush, and measure the plan.

    Options are measured once by a job; after that every change is solved at once. `allocation` is the plan as a value, None until
    the options are measured; `options` their table, `code` the Python that does the same.

    Example:
        >>> import workbench as wb
        >>> painter = wb.BudgetPainter(wb.open_model("builtin"))
        >>> painter.names.value  # the recipes between which it chooses
        'rtn:bits=2,group=64; rtn:bits=3,group=64; rtn:bits=4,group=64'
        >>> painter.allocation is None
        True
    """

    watches: ClassVar[tuple[str, ...]] = ("choice", "selection")

    def build(self) -> pn.viewable.Viewable:
        """Recipes and their measurement, the budget, the brush, two figures and the plan as Python."""
        self.options: pd.DataFrame | None = None
        self.scores: pd.DataFrame | None = None
        self.recipes: dict[str, Recipe] = {}
        self.followed = ""  # the layer that was selected last
        self.solved_paint: dict[str, str] = {}  # what the plan on show was solved with
        self.allocation: Allocation | None = None
        self.measured = pd.DataFrame(columns=["bits_per_weight", "predicted", "kl", "kl_low", "kl_high"])
        self.names = pn.widgets.TextInput(
            label="Recipes to choose from",
            value=suggest_recipes(self.session.model.layers()["cols"].tolist()),
            sizing_mode="stretch_width",
            description="Presets as on the command line, separated by semicolons: rtn:bits=2,group=64; rtn:bits=4",
        )
        self.go = self.does(
            build_action_button("Measure the options", "Measure the KL of every layer alone under every recipe", 170),
            self.measure_options,
        )
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.bits = Slider(
            label="Stored bits per weight",
            step=0.01,
            value=0.5,
            description="The budget of the plan, including scales and tables",
            sizing_mode="stretch_width",
            disabled=True,
        )
        self.method = pn.widgets.Select(
            label="Method", options=list(METHODS), width=190, description="Method that chooses the plan under the budget"
        )
        self.brush = pn.widgets.Select(
            label="Brush",
            options=[FREE],
            width=190,
            description="The recipe that Paint, or a click on a cell, assigns to a layer",
        )
        self.layer = pn.widgets.Select(
            label="Layer", options=self.session.model.layer_names, width=260, description="Layer to paint"
        )
        self.paint = self.does(
            build_action_button("Paint", "Assign the brush's recipe to this layer, whatever it costs", 80, main=False),
            self.stroke,
        )
        self.clear = self.does(
            build_action_button("Clear paint", "Let the budget choose for all layers again", 110, main=False), self.clear_paint
        )
        self.check = self.does(
            build_action_button("Measure this plan", "Quantize by this plan and measure its KL", 150, main=False),
            self.measure_plan,
        )
        self.pareto, self.plan = FigureFrame(), FigureFrame()
        self.python = pn.pane.HTML("", sizing_mode="stretch_width")
        for widget in (self.bits, self.method):
            widget.param.watch(lambda _: self.notices.guard(self.solve), "value")
        self.plan.plot.param.watch(lambda event: self._clicked(event.new), "click_data")
        return pn.Column(
            pn.Row(self.names, self.go, sizing_mode="stretch_width"),
            self.jobs,
            pn.Row(self.bits, self.method, sizing_mode="stretch_width"),
            self.plan,
            pn.FlexBox(self.brush, self.layer, self.paint, self.clear, self.check),
            self.pareto,
            build_folded_card("The plan in Python", self.python),
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """The layer to paint follows the selected one; without options both figures say what to do."""
        if self.followed != self.session.layer:
            self.layer.value = self.followed = self.session.layer
        if self.options is None:
            self._enable(there=False)
            self.plan.say(GETS, self._describe_cost())
            self.pareto.say(BUYS, "This curve is drawn once the options are measured.")
        elif self.painted != self.solved_paint:
            self.solve()

    @property
    def painted(self) -> dict[str, str]:
        """What is painted in the session, here or on the layer map, by the names of the recipes that were measured."""
        names = {recipe: name for name, recipe in self.recipes.items()}
        return {layer: names[recipe] for layer, recipe in self.session.painting.recipes.items() if recipe in names}

    def begin_default(self) -> None:
        """Measure the recipes that are chosen from at first."""
        self.measure_options()

    def _describe_cost(self) -> str:
        """What measuring takes, for who has to decide: on average half of the blocks are run again for each layer."""
        count = len([name for name in str(self.names.value).split(";") if name.strip()]) * len(self.session.model.layer_names)
        seconds = estimate_reading_seconds(count_weights(self.session.model), count * REPLAY_TOKENS / 2)
        return (
            f"Press Measure the options to measure the KL of every layer alone under every recipe: {count:,} measurements, "
            f"{themes.format_estimate(seconds)} on this machine."
        )

    def measure_options(self) -> None:
        """Sensitivity of every layer under every recipe, then the scores."""
        recipes = {name.strip(): parse(name.strip()) for name in str(self.names.value).split(";") if name.strip()}
        shared = self.session.shared

        def steps() -> Generator[Any, None, tuple[Any, ...]]:
            stats = yield from shared.stats_steps()
            table = yield from sensitivity_steps(shared.replay(), recipes, stats=stats, store=Store())
            return recipes, table, layer_scores(self.session.model, text("calibration"))

        self.jobs.run(steps, "measuring options", on_step=describe_step, ended=self._options_there)

    def _options_there(self, job: Job[Any]) -> None:
        if job.status != "done":
            return
        self.recipes, self.options, self.scores = job.result()
        coarsest = self.options.loc[self.options.groupby("name")["bits"].idxmin()].set_index("name")
        self.session.measured["sensitivity"] = coarsest["kl"].to_dict()  # colours the layer map
        self.live.announce("results")
        self.measured = self.measured.iloc[:0]
        per_recipe = self.options.groupby("recipe", sort=False)
        self.uniform = (per_recipe["bits"].sum() / per_recipe["parameters"].sum()).rename("bits_per_weight").to_frame()
        self.uniform["predicted"] = per_recipe["kl"].sum()
        least, most = self._range()
        self.brush.options = [FREE, *self.recipes]
        self._enable(there=True)
        grid = np.linspace(least * (1 + 1e-9), most, POINTS)
        plans = [allocate(self.options, self.recipes, bits) for bits in grid]
        self.curve = pd.DataFrame([{"bits_per_weight": a.bits_per_weight, "predicted": a.loss} for a in plans])
        middle = round((least + most) / 2, 2)
        self.bits.param.update(start=round(least + 0.005, 2), end=round(most + 0.005, 2), value=middle)
        self.solve()

    def _range(self) -> tuple[float, float]:
        """The cheapest and the dearest plan there is."""
        assert self.options is not None
        by_layer, weights = self.options.groupby("name")["bits"], self.options.drop_duplicates("name")["parameters"].sum()
        return float(by_layer.min().sum() / weights), float(by_layer.max().sum() / weights)

    def solve(self) -> None:
        """The plan of this budget, method and paint."""
        if self.options is None:
            return
        name, settings = METHODS[str(self.method.value)]
        method: Allocator = make("allocation", name, **settings)
        budget, self.solved_paint = float(self.bits.value or 0), self.painted
        self.allocation = allocate(self.options, self.recipes, budget, method, keep=self.painted, scores=self.scores)
        places = self.options.drop_duplicates("name")[["name", "block", "matrix"]]
        table = self.allocation.table.merge(places, on="name")
        self.plan.draw(views.draw_bit_plan(table, set(self.painted), theme=choose_theme()))
        self.pareto.draw(views.draw_pareto_front(self.curve, self.uniform.reset_index(), self.measured, theme=choose_theme()))
        self.python.object = render_code(self.code)

    @property
    def code(self) -> str:
        """Python that makes the plan and quantizes with it."""
        if self.allocation is None:
            return ""
        recipes = "".join(f"    {name!r}: {layer_recipe.code()},\n" for name, layer_recipe in self.recipes.items())
        choice = "".join(f"    {name!r}: {layer_recipe!r},\n" for name, layer_recipe in self.allocation.choice.items())
        return (
            f"import workbench as wb\nmodel = {self.session.model.code()}\nrecipes = {{\n{recipes}}}\nchoice = {{\n{choice}}}\n"
            "plan = wb.LayerPlan(tuple((layer, recipes[name]) for layer, name in choice.items()))\n"
            'result = wb.quantize_model(model, plan, stats=wb.calibrate(model, wb.text("calibration")))'
        )

    def measure_plan(self) -> None:
        """Quantize by the plan and replay: the truth beside the prediction."""
        plan, shared = self.allocation, self.session.shared
        assert plan is not None

        def steps() -> Generator[Any, None, Any]:
            stats = yield from shared.stats_steps()
            result = yield from quantize_model_steps(self.session.model, plan.plan, stats)
            return plan, shared.replay().divergence(build_replacements(self.session.model, result))

        self.jobs.run(steps, "measuring the plan", ended=self._plan_there)

    def _plan_there(self, job: Job[Any]) -> None:
        if job.status != "done":
            return
        plan, effect = job.result()
        row = {"bits_per_weight": plan.bits_per_weight, "predicted": plan.loss, "kl": effect.kl}
        row |= make_interval_columns("kl", effect.kl_interval)
        self.measured = pd.DataFrame([*self.measured.to_dict("records"), row])
        self.solve()

    def clear_paint(self) -> None:
        """Let the budget choose for all layers again."""
        self.session.painting.paint(list(self.painted), None)
        self.solve()
        self.live.announce("selection")

    def stroke(self) -> None:
        """Give the layer the brush's recipe, or back to the budget; what the budget does not reach for is not painted."""
        painting, before = self.session.painting, self.session.painting.recipes
        painting.paint([str(self.layer.value)], self.recipes.get(str(self.brush.value)))
        if painting.recipes == before:
            return
        try:
            self.solve()
        except Exception:
            painting.recipes = before
            raise
        self.live.announce("selection")

    def _clicked(self, data: Any) -> None:
        """A cell of the plan was clicked: its layer is painted."""
        figure, points = self.plan.figure, (data or {}).get("points") or []
        name = find_layer(figure.plot, points[0]) if figure is not None and points else None
        if name is not None:
            self.layer.value = name
            self.notices.guard(self.stroke)

    def _enable(self, *, there: bool) -> None:
        for widget in (self.bits, self.method, self.brush, self.layer, self.paint, self.clear, self.check):
            widget.disabled = not there


def suggest_recipes(cols: list[int]) -> str:
    """Grids of two, three and four bits, in groups that divide every layer."""
    group = next(size for size in (64, 32, 16, 8, 0) if size == 0 or gcd(*cols) % size == 0)
    return "; ".join(f"rtn:bits={bits},group={group}" for bits in (2, 3, 4))
