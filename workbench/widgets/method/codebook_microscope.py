"""A codebook in detail: the use, picture, positions and error of every code, and the effect of merging or reviving codes."""

from collections.abc import Callable, Generator
from typing import Any, ClassVar

import pandas as pd
import panel as pn

from workbench.analysis.method import codeword_edits, codewords
from workbench.analysis.method.codeword_edits import CodeEdit
from workbench.analysis.predictions.divergence import Divergence
from workbench.errors import WorkbenchError
from workbench.intervals import format_interval
from workbench.views.method import codewords as views
from workbench.widgets.base.component import choose_theme
from workbench.widgets.base.controls import build_action_button
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.marks import CodeInput, list_brushed_points
from workbench.widgets.base.sections import Sections
from workbench.widgets.method.book_section import NONE, QUANTIZE_FIRST, BookSection, Reading
from workbench.widgets.method.index_map import MapSection
from workbench.widgets.weights.channel_saliency import BRUSH

NO_CODES = "Select codes: draw a box in the section Use, or type their numbers into Marked codes."


class UseSection(BookSection):
    """Use against error of every codeword; a box marks codes."""

    questions = ("Is every codeword used?",)

    def build(self) -> pn.viewable.Viewable:
        """The figure takes boxes."""
        view = super().build()
        plot = self.frames[0].plot
        plot.config = BRUSH
        plot.param.watch(lambda event: self.notices.guard(lambda: self._brushed(event)), "selected_data")
        return view

    def paint(self, reading: Reading) -> None:
        """One point a codeword."""
        entropy = codewords.compute_index_entropy(reading.book)
        self.frames[0].draw(views.draw_codeword_scatter(reading.book, reading.table, entropy, self.marks, theme=choose_theme()))

    def _brushed(self, event: Any) -> None:
        if self.reading is not None and (places := list_brushed_points(event)):
            self.live.mark(codes=places)  # the first trace is in the order of their numbers


class PictureSection(BookSection):
    """Codewords as pictures."""

    questions = ("What do the codewords look like?",)

    def controls(self) -> list[pn.viewable.Viewable]:
        """The order."""
        self.order = pn.widgets.Select(
            label="Order", options=list(views.ORDERS), width=170, description="Order of the codewords; marked ones come first."
        )
        self.order.param.watch(lambda _: self.notices.guard(self.refresh), "value")
        return [self.order]

    def paint(self, reading: Reading) -> None:
        """The first few in this order."""
        self.frames[0].draw(views.draw_codewords(reading.book, reading.table, self.order.value, self.marks, theme=choose_theme()))


class PlaceSection(BookSection):
    """Where marked codes sit, and how they serve."""

    questions = ("Where do these codes occur?", "How well do these codes fit their weights?")

    def paint(self, reading: Reading) -> None:
        """Both figures for the marked codes."""
        book = reading.book
        if not self.marks:
            for frame, question in zip(self.frames, self.questions, strict=True):
                frame.say(question, NO_CODES)
            return
        table, bins = codewords.tabulate_error_profile(book, self.marks, reading.errors, reading.energy)
        shape = (book.node.rows, book.node.cols)
        self.frames[0].draw(
            views.draw_code_positions(
                codewords.locate_codewords(book, self.marks), table, self.marks, shape, theme=choose_theme()
            )
        )
        self.frames[1].draw(views.draw_code_errors(table, bins, self.marks, theme=choose_theme()))


class EditSection(BookSection):
    """What if one code were merged into another, revived, or all dead ones taken out? Nothing changes until it is applied."""

    questions = ("What if this codeword changed?",)

    def build(self) -> pn.viewable.Viewable:
        """Two codes, three edits, and the button that keeps one."""
        self.edit: CodeEdit | None = None
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        return pn.Column(super().build(), self.jobs, sizing_mode="stretch_width")

    def controls(self) -> list[pn.viewable.Viewable]:
        """The fields and buttons."""
        self.code, self.into = (
            pn.widgets.IntInput(label=label, value=value, start=0, width=110, description=what)
            for label, value, what in (
                ("Code", 0, "Number of the codeword to merge or revive."),
                ("Into", 1, "Number of the codeword that replaces it."),
            )
        )
        edits = (
            ("Merge", "Let all vectors of the first code use the second one", 90, self._merge),
            ("Revive", "Give a dead code the pattern with the largest error", 90, self._revive),
            ("Remove dead codes", "Store only the codewords that are used", 170, self._take_out),
            ("Apply", "Apply this as a new result of the layer", 90, self._apply),
        )
        self.buttons = {
            label: self.does(build_action_button(label, what, width, main=label == "Apply"), does)
            for label, what, width, does in edits
        }
        return [self.code, self.into, *self.buttons.values()]

    def refresh(self) -> None:
        """An edit of another result is forgotten."""
        if self.edit is not None and self.edit.before is not self.session.result:
            self.edit = None
        self.buttons["Apply"].disabled = self.edit is None
        super().refresh()

    def paint(self, reading: Reading) -> None:
        """The edit that was tried on this result, or what can be done."""
        for field in (self.code, self.into):
            field.param.update(end=reading.book.entries - 1, value=min(field.value or 0, reading.book.entries - 1))
        if self.edit is None:
            self.frames[0].say(self.questions[0], f"{self._suggestion(reading.table)} Nothing is changed until Apply is pressed.")

    def _suggestion(self, table: pd.DataFrame) -> str:
        """The rarest used code, the one most like it, and the first dead one."""
        used, dead = table[table["count"] > 0], table[table["count"] == 0]
        rare = used.loc[used["count"].idxmin()]
        like = "" if pd.isna(rare["nearest"]) else f"; the nearest is code {int(rare['nearest'])}"
        suggestion = f"Code {rare['codeword']} is the least used, by {rare['count']:,} vectors{like}: merge them."
        return suggestion if dead.empty else f"{suggestion} Code {dead['codeword'].iloc[0]} is dead: revive it."

    def _merge(self) -> None:
        source, into = self.number(self.code), self.number(self.into)
        self._try(lambda layer, weight, moment, path: codeword_edits.merge(layer, weight, moment, path, source, into))

    def _revive(self) -> None:
        code = self.number(self.code)
        self._try(lambda layer, weight, moment, path: codeword_edits.revive(layer, weight, moment, path, code))

    def number(self, field: pn.widgets.IntInput) -> int:
        """What is in a field; WorkbenchError for an emptied one."""
        if field.value is None:
            raise WorkbenchError(f"the field {field.label} is empty; write the number of a codeword.")
        return int(field.value)

    def _take_out(self) -> None:
        self._try(codeword_edits.remove_dead)

    def _try(self, change: Callable[..., CodeEdit]) -> None:
        """Make the edit and measure it, as a job: errors, bits and the KL that this layer causes."""
        result, reading = self.session.result, self.reading
        if self.study.jobs.running:
            raise WorkbenchError("the codebook is still being read; try again when its figures are there.")
        if result is None or reading is None:
            raise WorkbenchError(QUANTIZE_FIRST if result is None else NONE)
        session, book = self.session, reading.book

        def steps() -> Generator[Any, None, tuple[CodeEdit, pd.DataFrame]]:
            stats = yield from session.shared.stats_steps()
            weight = session.shared.weight(result.name).float()
            edit = change(result, weight, stats[result.name].moment, book.path)
            yield
            changed: list[Divergence] = []
            for edited in (None, edit.layer) if session.model.writes_text else ():
                changed.append(session.effect(result, edited))
                yield
            return edit, _tabulate_edit_effect(edit, book.path, changed)

        self.jobs.run(steps, "measuring the edit", ended=self._measured)

    def _measured(self, job: Any) -> None:
        if job.error is None and job.progress == 1:
            self.edit, table = job.result()
            self.frames[0].draw(views.draw_edit_effect(table, self.edit.sentence, self.edit.moved, theme=choose_theme()))
        self.buttons["Apply"].disabled = self.edit is None

    def _apply(self) -> None:
        if self.edit is not None:
            self.session.adopt(self.edit.layer)
            self.edit = None
            self.live.announce("results")


def _tabulate_edit_effect(edit: CodeEdit, path: str, changed: list[Divergence]) -> pd.DataFrame:
    """One row a figure: figure, before, after, difference, interval (of `after`); `changed` holds both, or nothing."""
    before, after = edit.before, edit.layer
    rows = [("weight error", before.relative_error, after.relative_error, "")]
    if before.output_error is not None and after.output_error is not None:
        rows.append(("output error", before.output_error, after.output_error, ""))
    rows.append(("stored bits per weight", before.bits_per_weight, after.bits_per_weight, ""))
    rows.append(("bits per index", *codeword_edits.count_index_bits(edit, path), ""))
    if changed:
        rows.append(
            ("KL of this layer alone", changed[0].kl, changed[1].kl, format_interval(changed[1].kl_interval, changed[1].tokens))
        )
    table = pd.DataFrame(rows, columns=["figure", "before", "after", "interval"])
    table.insert(3, "difference", table["after"] - table["before"])
    return table


class CodebookMicroscope(Sections):
    """Look into the codebooks of the selected layer's result: use, pictures, map, places and edits.

    A code that is marked in one section is marked in all.

    Example:
        >>> import workbench as wb
        >>> microscope = wb.CodebookMicroscope(wb.open_model("builtin"), threaded=False)
        >>> microscope.section.options
        ['Use', 'Pictures', 'Index map', 'Positions and error', 'Merge or revive']
        >>> microscope["Use"].reading is None  # nothing is quantized yet
        True
    """

    kinds: ClassVar = {
        "Use": UseSection,
        "Pictures": PictureSection,
        "Index map": MapSection,
        "Positions and error": PlaceSection,
        "Merge or revive": EditSection,
    }

    def below(self) -> list[pn.viewable.Viewable]:
        """Marks below all sections."""
        return [self.part(CodeInput).view]
