"""Several layers at once: mark them on the map or by name, paint a recipe on them, and quantize what is painted."""

from typing import Any

import panel as pn

from workbench import presets
from workbench.analysis.decisions.pins import format_recipe
from workbench.errors import WorkbenchError
from workbench.recipe import Recipe
from workbench.views import theme as themes
from workbench.widgets.base.component import Component, render_chosen_css
from workbench.widgets.base.controls import build_action_button
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.markup import render_paragraph

NARROW_MARGIN = (2, 3)


class LayerBrush(Component):
    """Mark layers by name, by block or by matrix, paint a preset on them, and quantize the painted ones as one run."""

    watches = ("choice", "results", "run", "selection")
    waits = False

    def build(self) -> pn.viewable.Viewable:
        """What is marked, what to paint on it, and the run."""
        self.names = pn.widgets.TextInput(
            label="Marked layers",
            placeholder="*.down_proj, *.0.mlp.*",
            sizing_mode="stretch_width",
            description="Names of layers separated by commas, * matches anything; or draw a box on the map. Empty for none.",
        )
        self.block = self._button("This block", "Mark all layers of the selected block", self._mark_block)
        self.matrix = self._button("This matrix", "Mark the selected matrix in all blocks", self._mark_matrix)
        self.none = self._button("None", "Mark no layer", lambda: self.live.mark(layers=()))
        self.recipe = pn.widgets.TextInput(
            label="Paint with",
            placeholder="the recipe on the bench",
            sizing_mode="stretch_width",
            description="A preset as on the command line, e.g. rtn:bits=2 or gptq:bits=3; empty for the recipe on the bench",
        )
        self.paint = self._button("Paint", "Give the marked layers this recipe in the plan", self._paint)
        self.clear = self._button("Remove paint", "Take the marked layers, or all, out of the plan", self._clear)
        self.plan = pn.pane.HTML("", sizing_mode="stretch_width", margin=NARROW_MARGIN)
        self.go = self.does(
            build_action_button("Quantize the painted layers", "Make a run of the plan", None, margin=NARROW_MARGIN),
            self.quantize,
        )
        self.jobs = JobPanel(self.notices, threaded=self.threaded, queue=self.session.shared.queue)
        self.jobs.view.visible = False
        self.jobs.param.watch(lambda _: self._free(), "running")
        self.names.param.watch(lambda event: self.notices.guard(lambda: self._typed(event.new)), "value")
        whose = pn.FlexBox(self.block, self.matrix, self.none, sizing_mode="stretch_width")
        strokes = pn.FlexBox(self.paint, self.clear, sizing_mode="stretch_width")
        parts = (self.names, whose, self.recipe, strokes, self.plan, self.go, self.jobs)
        return pn.Column(*parts, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """Marks and plan as they are."""
        self.names.value = ", ".join(self.session.selection.layers)
        recipes = self.session.painting.recipes
        counts: dict[str, int] = {}
        for recipe in recipes.values():
            counts[format_recipe(recipe)] = counts.get(format_recipe(recipe), 0) + 1
        parts = [f"{name} on {themes.format_count(count, 'layer')}" for name, count in counts.items()]
        marked = themes.format_count(len(self.session.selection.layers), "layer is", "layers are")
        painted = "; ".join(parts) if parts else "nothing is painted yet"
        self.plan.object = render_paragraph(f"{marked} marked. Plan: {painted}.")
        self._free()

    def quantize(self) -> None:
        """Make a run of what is painted."""
        self.jobs.view.visible = True
        self.jobs.run(
            self.session.painting.quantize_steps,
            "quantizing the painted layers",
            ended=lambda _: self.live.announce("results", "run"),
        )

    def _button(self, label: str, description: str, action: Any) -> pn.widgets.Button:
        button = pn.widgets.Button(label=label, description=description, margin=NARROW_MARGIN, stylesheets=[render_chosen_css()])
        return self.does(button, action)

    def _free(self) -> None:
        self.paint.disabled = not self.session.selection.layers
        self.clear.disabled = not self.session.painting.recipes
        self.go.disabled = self.jobs.running or not self.session.painting.recipes

    def _typed(self, patterns: str) -> None:
        if patterns == ", ".join(self.session.selection.layers):
            return
        try:
            self.live.mark(layers=self.session.model.select(patterns) if patterns.strip() else ())
            if patterns.strip() and not self.session.selection.layers:
                raise WorkbenchError(
                    f"no layer matches {patterns!r}; names look like {self.session.layer!r}, and * matches anything."
                )
        finally:
            self.refresh()

    def _mark_block(self) -> None:
        layers = self.session.model.layers().set_index("name")
        self.live.mark(layers=layers.index[layers["block"] == layers.loc[self.session.layer, "block"]])

    def _mark_matrix(self) -> None:
        layers = self.session.model.layers().set_index("name")
        self.live.mark(layers=layers.index[layers["matrix"] == layers.loc[self.session.layer, "matrix"]])

    def _paint(self) -> None:
        """Put the typed recipe, or that of the bench, on what is marked."""
        typed = str(self.recipe.value or "").strip()
        recipe: Recipe = presets.parse(typed) if typed else self.session.recipe
        self.session.painting.paint(self.session.selection.layers, recipe)
        self.live.announce("selection")

    def _clear(self) -> None:
        marked = self.session.selection.layers or tuple(self.session.painting.recipes)
        self.session.painting.paint(marked, None)
        self.live.announce("selection")
