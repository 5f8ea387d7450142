"""How fast does this layer run on this machine? The packed layer beside torch, on the machine's roofline."""

from collections.abc import Generator

import panel as pn
import torch

from workbench.bench import Result, measure_kernels_steps
from workbench.bench.run import Measuring
from workbench.jobs import Job
from workbench.kernels.matmul import dispatch
from workbench.kernels.matmul.dispatch import Explanation
from workbench.views.predictions.roofline import SPEED_QUESTION, draw_roofline
from workbench.widgets.base.component import Component, FigureFrame, choose_theme, render_chosen_css
from workbench.widgets.base.controls import BESIDE, build_action_button
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.markup import render_paragraph

OTHERS = ("torch-bf16", "torch-int8", "signs", "w4-g128")  # what a layer is compared with, next to torch in float32
BATCHES = (1, 8, 32)
COLD_BYTES = 64 << 20  # enough for most caches; small layers take hundreds of copies
MEMORY = {"from memory": "cold", "from the cache": "hot"}
MEASURE_FIRST = "Press Measure. It takes about ten seconds, and longer the first time, when kernels are compiled."
UNPACKED = "This layer is not quantized yet: quantize it to see it here, or press Measure for other formats at its size."


class SpeedView(Component):
    """Measure how fast the selected layer's shape runs in a few formats, and its own packed matrix where there is one.

    `measured` holds the result, None until it is measured.

    Example:
        >>> import workbench as wb
        >>> view = wb.SpeedView(wb.open_model("builtin"), "model.layers.0.mlp.down_proj")
        >>> view.batch.value, view.measured is None
        (1, True)
    """

    def build(self) -> pn.viewable.Viewable:
        """What to measure above, the roofline below."""
        cores = torch.get_num_threads()
        self.batch = pn.widgets.Select(
            label="Inputs",
            options=list(BATCHES),
            value=1,
            width=100,
            description="Batch size: number of tokens multiplied at a time",
        )
        self.threads = pn.widgets.Select(
            label="Threads",
            options=sorted({1, cores}),
            value=1,
            width=100,
            description="Number of threads used for one matmul",
        )
        self.memory = pn.widgets.RadioButtonGroup(
            label="Weights are read", options=list(MEMORY), width=270, margin=BESIDE, stylesheets=[render_chosen_css()]
        )
        self.go = build_action_button("Measure", "Time the layer and its packed form beside torch on this machine", 110)
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.jobs.param.watch(lambda event: self.go.param.update(disabled=event.new), "running")
        self.says, self.frame = pn.pane.HTML("", sizing_mode="stretch_width"), FigureFrame()
        self.measured: Result | None = None
        self.measured_layer: tuple[str, object] | None = None  # the layer and recipe that were measured
        self.go.on_click(lambda _: self.notices.guard(self.measure))
        self.memory.param.watch(lambda _: self._show(), "value")
        choices = pn.FlexBox(self.batch, self.threads, self.memory, self.go)
        return pn.Column(choices, self.jobs, self.says, self.frame, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """What runs the selected layer; a measurement stays until another layer or recipe is chosen."""
        result = self.session.result
        if result is None:
            self.says.object = render_paragraph(UNPACKED, live=False)
        else:
            self.says.object = render_paragraph(
                _describe_backend_choice(dispatch.explain(result.packed, int(self.batch.value or 1)))
            )
        if self.measured_layer != self._now():
            self.measured = None
        self._show()

    def measure(self) -> None:
        """Run the bench for the selected layer."""
        if self.jobs.running:
            return
        result, now = self.session.result, self._now()
        selected = self.session.model.layer(self.session.layer)
        rows, cols = selected.rows, selected.cols
        batch, threads = int(self.batch.value or 1), int(self.threads.value or 1)

        def steps() -> Generator[Measuring, None, Result]:
            layer = None if result is None else result.packed
            return measure_kernels_steps(
                (rows, cols), OTHERS, layer=layer, batches=(batch,), threads=(threads,), cold_bytes=COLD_BYTES
            )

        def ended(job: Job[Result]) -> None:
            if job.error is None and job.status == "done":
                self.measured, self.measured_layer = job.result(), now
            self._show()

        self.jobs.run(steps, f"measuring {rows:,} × {cols:,}", ended=ended)

    def _now(self) -> tuple[str, object]:
        return self.session.layer, self.session.recipe if self.session.result is not None else None

    def _show(self) -> None:
        if self.measured is None:
            self.frame.say(SPEED_QUESTION, MEASURE_FIRST)
        else:
            self.frame.draw(draw_roofline(self.measured, state=MEMORY[str(self.memory.value)], theme=choose_theme()))


def _describe_backend_choice(explanation: Explanation) -> str:
    """Which backend runs the layer and why others do not, as a sentence or two."""
    others = "; ".join(f"{name} does not: {reason}" for name, reason in explanation.refused.items())
    return f"Runs on {explanation.backend}: {explanation.reason}. {others[:1].upper() + others[1:]}."
