"""Pictures of one block over the tokens of a text: read in the background, and shown from afar or value by value."""

import operator
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import pandas as pd
import panel as pn
from torch import Tensor

from workbench.analysis.predictions.block_reading import MAX_TOKENS, READ_TOKENS, BlockReading, read_block
from workbench.analysis.weights import raster
from workbench.analysis.weights.raster import Window
from workbench.jobs import Counted, Job, Status
from workbench.models.layers import split_name
from workbench.quantized import QuantizedLayer
from workbench.views.holoviews_style import name_axes
from workbench.views.weights import weight_raster as views
from workbench.views.weights.weight_raster import Marks, Names, RasterPicture, What
from workbench.widgets.base.component import Component, choose_theme
from workbench.widgets.base.controls import build_action_button
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.raster_frame import Ends, RasterFrame, RasterPane
from workbench.widgets.base.window_controls import WindowControls


@dataclass(frozen=True, eq=False)
class Subject:
    """What is read: a block, a prompt and how many tokens, and the results that are packed in the quantized model."""

    block: int
    prompt: str
    tokens: int
    results: tuple[QuantizedLayer, ...]

    def is_same(self, other: "Subject | None") -> bool:
        """Whether the other one is of the same text and the same results, which are compared by identity."""
        if other is None or (self.block, self.prompt, self.tokens) != (other.block, other.prompt, other.tokens):
            return False
        return len(self.results) == len(other.results) and all(map(operator.is_, self.results, other.results))


@dataclass(frozen=True)
class Readings:
    """The original's reading of a text and, where something is quantized, that of the quantized model."""

    original: BlockReading
    quantized: BlockReading | None


@dataclass(frozen=True)
class Drawing:
    """What a frame shows: question and answer, the matrices by kind, what their rows and columns are, and the table twin."""

    question: str
    answer: str
    matrices: dict[What, Tensor]
    names: Names
    table: pd.DataFrame


class TokenRaster(Component):
    """The prompt, continued by the original's own text, in the block of the selected layer.

    Subclasses have controls and say in `draw_readings` what is shown. `readings` is what was read, as a value.
    """

    watches = ("choice", "results", "run")
    question: ClassVar[str] = ""
    axis_labels: ClassVar[tuple[str, str]] = ("", "")
    column: ClassVar[str] = "column"  # what the fields of the window call one

    def build(self) -> pn.viewable.Viewable:
        """Controls, the window, and the picture."""
        self.readings: Readings | None = None
        self.subject: Subject | None = None
        what = f"Tokens of the prompt and of what the original writes after it, at most {MAX_TOKENS}"
        self.tokens = pn.widgets.IntInput(
            label="Tokens to read", value=READ_TOKENS, start=2, end=MAX_TOKENS, step=16, width=110, description=what
        )
        self.go = self.does(build_action_button("Read the text", "Read the prompt with both models", 130), self.read)
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.window = WindowControls(lambda window: self.notices.guard(lambda: self.zoom(window)), column=self.column)
        axes = name_axes(*self.axis_labels)
        self.axes: tuple[Ends, Ends] = ((0.0, 1.0), (0.0, 1.0))  # what is visible
        self.pane = RasterPane(
            partial(views.draw_weight_raster, axes=axes),
            partial(views.draw_marks, axes=axes),
            partial(views.draw_weight_values, axes=axes),
            zoomed=lambda x, y: self.notices.guard(lambda: self._look_at(x, y)),
            tapped=lambda _x, _y: None,
        )
        self.frame = RasterFrame({"picture": self.pane})
        controls = pn.FlexBox(*self.controls(), self.tokens, self.go)
        return pn.Column(controls, self.jobs, self.window, self.frame, sizing_mode="stretch_width")

    def controls(self) -> list[pn.viewable.Viewable]:
        """What a subclass lets a visitor choose."""
        raise NotImplementedError

    def draw_readings(self, readings: Readings) -> Drawing | str:
        """What is shown of these readings, or why nothing is, in a sentence."""
        raise NotImplementedError

    @property
    def block(self) -> int | None:
        """The block of the selected layer."""
        block_and_matrix = split_name(self.session.layer)
        return None if block_and_matrix is None else block_and_matrix[0]

    def begin_default(self) -> None:
        """Read the prompt."""
        self.read()

    def refresh(self) -> None:
        """The pictures of this block, prompt and run; what was read of others is no answer here."""
        if self.block is None:
            self._say(f"{self.session.layer} is in no block: select a layer of a block to see its attention and cache.")
        elif self.readings is not None and (now := self._find_subject()) is not None and now.is_same(self.subject):
            self.paint()
        else:
            self._say(f"Press Read the text to read the prompt in block {self.block}.")

    def read(self) -> None:
        """Read the text with the original and the run on show."""
        if (subject := self._find_subject()) is None:
            self.refresh()
            return
        block, prompt, tokens = subject.block, subject.prompt, subject.tokens
        model, compared = self.session.model.language_model(), self.session.compared

        def steps() -> Generator[Counted, None, Readings]:
            length = int(model.encode(prompt).shape[1])
            text = prompt if length >= tokens else model.generate(prompt, min(tokens, model.context - 1) - length)
            yield Counted(1, 3)
            before = read_block(model, text, block, tokens=tokens)
            yield Counted(2, 3)
            after = read_block(compared.models()[1], text, block, tokens=tokens) if subject.results else None
            return Readings(before, after)

        self.jobs.run(steps, "reading the text", ended=lambda job: self._ended(job, subject), latest=True)

    def paint(self) -> None:
        """Draw what is chosen of the readings."""
        if self.readings is None:
            return
        drawing = self.draw_readings(self.readings)
        if isinstance(drawing, str):
            self._say(drawing)
            return
        ((what, matrix),) = drawing.matrices.items()
        rows, cols = matrix.shape
        if (rows, cols) != self.window.shape:
            self.window.fill((0, rows - 1, 0, cols - 1), (rows, cols))
            self.axes = views.compute_axis_ranges(self.window.window)
        cells = raster.rasterize(raster.read_weight(matrix), self.window.window)
        everything = raster.rasterize(raster.read_weight(matrix), self.window.all_weights)
        x, y = self.axes
        picture = RasterPicture(cells, what, (rows, cols), everything.compute_limit(), x, y, choose_theme(), drawing.names)
        self.window.view.visible = True
        marks = Marks((), (), (rows, cols), choose_theme())
        self.frame.draw(drawing.question, drawing.answer, {"picture": picture}, marks, drawing.table)

    def zoom(self, window: Window) -> None:
        """Show a window: first and last row, first and last column."""
        self.window.fill(window, self.window.shape)
        self.axes = views.compute_axis_ranges(self.window.window)
        self.paint()

    def _look_at(self, x: Ends, y: Ends) -> None:
        """Show what the axes of the picture reach now."""
        if (x, y) == self.axes:
            return
        self.axes = (x, y)
        window = raster.find_visible_window(x, y, self.window.shape)
        if window != self.window.window:
            self.window.fill(window, self.window.shape)
            self.paint()

    def _find_subject(self) -> Subject | None:
        """What is to be read now."""
        if self.block is None:
            return None
        results = tuple(self.session.compared.layers().values())
        return Subject(self.block, self.session.choice.prompt, int(self.tokens.value or READ_TOKENS), results)

    def _ended(self, job: Job[Readings], subject: Subject) -> None:
        if job.status is Status.DONE:
            self.readings, self.subject = job.result(), subject
        self.refresh()

    def _say(self, sentence: str) -> None:
        self.window.view.visible = False
        self.frame.say(self.question, sentence)
