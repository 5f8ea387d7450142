"""A section of the codebook microscope: one codebook of the selected layer's result, read and then drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import panel as pn
from torch import Tensor

from workbench.analysis.method import codewords
from workbench.analysis.method.codewords import Book
from workbench.quantized import QuantizedLayer
from workbench.widgets.base.background_figure import Study
from workbench.widgets.base.component import Component, FigureFrame

QUANTIZE_FIRST = "This layer is not quantized yet: press Quantize this layer."
NONE = "This recipe has no codebook: try the preset btc at 0.8 bits, or gptvq."


@dataclass(frozen=True)
class Reading:
    """What was read of a result: the codebook of this `number` out of so many, its codewords, error and energy of all vectors."""

    result: QuantizedLayer
    number: int
    books: int
    book: Book
    errors: Tensor
    energy: Tensor
    table: pd.DataFrame


class BookSection(Component):
    """A section over one codebook of the selected layer's result; `reading` is None where there is none, or not yet."""

    watches = ("choice", "results", "selection")
    questions: ClassVar[tuple[str, ...]] = ()

    def build(self) -> pn.viewable.Viewable:
        """Which codebook, what else the section needs, and a frame for each of its questions."""
        self.plane = pn.widgets.Select(
            label="Codebook",
            options={"codebook 1": 0},
            width=170,
            visible=False,
            description="Codebook to show; a layer's codebooks are added up.",
        )
        self.plane.param.watch(lambda _: self.notices.guard(self.refresh), "value")
        self.frames = self.build_frames()
        self.reading: Reading | None = None
        body = pn.Column(pn.FlexBox(self.plane, *self.controls()), *self.frames, sizing_mode="stretch_width")
        self.study = Study(body, self.notices, threaded=self.threaded)
        return self.study.view

    def build_frames(self) -> Sequence[Any]:
        """A frame for each question: what it draws, or why there is nothing to draw."""
        return [FigureFrame() for _ in self.questions]

    def controls(self) -> list[pn.viewable.Viewable]:
        """Switches of the section; none by default."""
        return []

    def refresh(self) -> None:
        """Read the codebook and its errors, then draw, or say why there is nothing to draw."""
        result, number, reading = self.session.result, int(self.plane.value or 0), self.reading
        if reading is not None and (reading.result is not result or reading.number != number):
            reading = self.reading = None  # it is of something else

        def find() -> Reading | None:
            return reading or (None if result is None else self.read(result, number))

        light = result is None or reading is not None or self.session.portrait().is_light
        self.study.run([find], lambda reading: self._draw(result, reading), at_once=light)

    def read(self, result: QuantizedLayer, number: int) -> Reading | None:
        """A result's codebook of this number, or its last one; None where it has none."""
        books = codewords.list_codebooks(result.packed)
        if not books:
            return None
        number = min(number, len(books) - 1)
        book = books[number]
        errors, energy = codewords.compute_vector_errors(result.packed, self.session.shared.weight(result.name).float(), book)
        return Reading(result, number, len(books), book, errors, energy, codewords.tabulate_codewords(book, errors, energy))

    def _draw(self, result: QuantizedLayer | None, reading: Reading | None) -> None:
        self.reading = reading
        number, books = (0, 1) if reading is None else (reading.number, reading.books)
        options = {f"codebook {index + 1}": index for index in range(books)}
        self.plane.param.update(options=options, value=number, visible=books > 1)
        if reading is None:
            for frame, question in zip(self.frames, self.questions, strict=True):
                frame.say(question, QUANTIZE_FIRST if result is None else NONE)
            return
        self.marks = tuple(code for code in self.session.selection.codes if code < reading.book.entries)
        self.paint(reading)

    def paint(self, reading: Reading) -> None:
        """Draw what was read."""
        raise NotImplementedError
