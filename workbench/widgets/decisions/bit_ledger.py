"""Where does every stored bit go? Bars, a tree, the steps from nominal to stored bits, and the bytes on disk."""

import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import panel as pn

from workbench.analysis.decisions import bit_ledger as analysis
from workbench.analysis.decisions.bit_ledger import OnDisk
from workbench.analysis.decisions.pins import format_recipe
from workbench.artifact import save
from workbench.bits import BitLedger
from workbench.quantized import QuantizedLayer, QuantizedModel
from workbench.views.decisions import bit_ledger as views
from workbench.views.decisions.compared_ledger import draw_compared_ledgers
from workbench.widgets.base.component import Component, FigureFrame, choose_theme, render_chosen_css
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.markup import render_paragraph

LAYER, MODEL = "this layer", "the whole model"


class LedgerView(Component):
    """Show the stored bits of the selected layer, or of the whole quantized model, with the nominal bits beside them.

    Example:
        >>> import workbench as wb
        >>> result = wb.quantize(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", wb.recipe("rtn", bits=2))
        >>> wb.LedgerView(result).frame.figure.answer
        'This layer stores 2.14 bits per weight (2.00 nominal), 52.6 kB: 93.4 % is uniform codes, 5.84 % uniform scale.'
    """

    watches = ("choice", "results", "run")

    def build(self) -> pn.viewable.Viewable:
        """Scope, the check on disk, three figures."""
        self.scope = pn.widgets.RadioButtonGroup(
            label="Scope", options=[LAYER, MODEL], width=260, stylesheets=[render_chosen_css()]
        )
        self.scope.param.watch(lambda _: self.notices.guard(self.refresh), "value")
        self.check = pn.widgets.Button(
            label="Count on disk",
            description="Save to a temporary file, count its bytes, and delete it.",
            width=140,
            stylesheets=[render_chosen_css()],
        )
        self.check.on_click(lambda _: self.notices.guard(self._count))
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.jobs.view.visible = False
        self.counted: list[tuple[QuantizedLayer | QuantizedModel, OnDisk]] = []  # the last result that was counted
        self.disk = pn.pane.HTML("", margin=(0, 10), sizing_mode="stretch_width")
        self.frame, self.bridge, self.tree = FigureFrame(), FigureFrame(), FigureFrame()
        frames = (self.frame, self.bridge, self.tree)
        return pn.Column(pn.FlexBox(self.scope, self.check), self.disk, self.jobs, *frames, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """The ledger of the chosen scope."""
        quantized = self._selected_result()
        self.check.disabled = quantized is None
        self.disk.object = ""
        if quantized is None:
            button = "Quantize the whole model" if self.scope.value == MODEL else "Quantize this layer"
            for frame, question in (
                (self.frame, "Where does every stored bit go?"),
                (self.bridge, "Why is more stored than the nominal figure says?"),
                (self.tree, f"What is stored for {self.scope.value}?"),
            ):
                frame.say(question, f"Nothing is stored yet: press {button}.")
            return
        scope, layers, coverage = LAYER, {}, None
        if isinstance(quantized, QuantizedModel):
            coverage = quantized.coverage
            scope = f"{MODEL} by {format_recipe(quantized.plan.rules[0][1])}"
            layers = {name: layer.ledger for name, layer in quantized.layers.items()}
        else:
            layers[quantized.name] = quantized.ledger
        if (beside := self._reference_ledger()) is not None:
            compared = draw_compared_ledgers(
                beside, quantized.ledger, self.session.compared.labels, scope=self.scope.value, theme=choose_theme()
            )
            self.frame.draw(compared)
        else:
            self.frame.draw(views.draw_bit_ledger(quantized.ledger, scope=scope, coverage=coverage, theme=choose_theme()))
        self.bridge.draw(
            views.draw_bits_waterfall(analysis.tabulate_overhead(quantized.ledger), scope=self.scope.value, theme=choose_theme())
        )
        self.tree.draw(
            views.draw_icicle(
                analysis.tabulate_ledger_tree(layers), quantized.ledger.weights, scope=self.scope.value, theme=choose_theme()
            )
        )
        if (on_disk := next((disk for result, disk in self.counted if result is quantized), None)) is not None:
            self.disk.object = render_paragraph(views.describe_size_on_disk(on_disk))

    def _selected_result(self) -> QuantizedLayer | QuantizedModel | None:
        if self.scope.value == LAYER:
            return self.session.compared.shown
        return self.session.runs.quantized(self.session.runs.current) or self.session.quantized_model

    def _reference_ledger(self) -> BitLedger | None:
        """The ledger of the run that is compared with; None for the original, or where it has no such layer."""
        if self.scope.value == LAYER:
            layer = self.session.compared.reference
            return None if layer is None else layer.ledger
        model = self.session.runs.quantized(self.session.runs.reference)
        return None if model is None else model.ledger

    def _count(self) -> None:
        quantized = self._selected_result()
        if quantized is None:
            return
        self.jobs.view.visible = True

        def steps() -> Generator[None, None, OnDisk]:
            yield
            return self._saved(quantized) if isinstance(quantized, QuantizedModel) else analysis.measure_layer_file(quantized)

        def ended(job: Any) -> None:
            if job.error is None and job.progress == 1:
                self.counted = [(quantized, job.result())]
            self.jobs.view.visible = job.error is not None
            self.refresh()

        self.jobs.run(steps, "counting bytes on disk", ended=ended)

    def _saved(self, quantized_model: QuantizedModel) -> OnDisk:
        """Save the whole model as `save` does, and compare."""
        with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
            return analysis.measure_saved_file(save(quantized_model, Path(folder) / "model", self.session.model))
