"""The history of the session: every step in a tree, the difference between two steps, and the session as a file or a cell."""

import io

import panel as pn

from workbench.session import History, describe_differences, session_file
from workbench.widgets.base.component import Component, run_in_browser
from workbench.widgets.base.controls import BESIDE
from workbench.widgets.base.markup import render_bullets, render_heading

VISIBLE_STEPS = 14  # steps that the list shows without scrolling


class HistoryView(Component):
    """List the steps with their branches: choosing one goes there; save, load, copy as a notebook cell.

    Example:
        >>> import workbench as wb
        >>> explorer = wb.Explorer("builtin")
        >>> list(wb.HistoryView(explorer).steps.options)  # linked: it follows the explorer
        ['● 0 · opened model.layers.0.self_attn.q_proj']
    """

    watches = ("choice", "results", "selection")
    waits = False

    def build(self) -> pn.viewable.Viewable:
        """The list, what differs, and the buttons."""
        self._filling = False
        wide = {"sizing_mode": "stretch_width"}
        tips = (
            "Use the arrow keys to move; the selected step becomes the current one",
            "Show the differences between that step and the current one",
        )
        self.title = pn.pane.HTML("", **wide)
        self.steps = pn.widgets.Select(label="Steps", size=VISIBLE_STEPS, description=tips[0], **wide)
        self.other = pn.widgets.Select(label="Compare with", description=tips[1], **wide)
        self.difference = pn.pane.HTML("", **wide)
        self.save = pn.widgets.FileDownload(
            callback=self._file, filename="session.json", label="Save session", width=160, margin=BESIDE
        )
        self.load = pn.widgets.FileInput(
            label="Load session", accept=".json", width=260, description="Load a saved session with all its steps"
        )
        self.copy = pn.widgets.Button(
            label="Copy as a cell", width=160, margin=BESIDE, description="Python code that repeats the same steps"
        )
        self.cell = pn.widgets.TextAreaInput(
            label="The same in Python", rows=8, description="Code for a notebook cell; edit it there, not here", **wide
        )
        run_in_browser(self.copy, "navigator.clipboard.writeText(cell.value)", cell=self.cell)
        self.steps.param.watch(lambda event: self._go(event.new), "value")
        self.other.param.watch(lambda _: self.notices.guard(self._compare), "value")
        self.load.param.watch(lambda event: self.notices.guard(lambda: self._take_up(event.new)), "value")
        return pn.Column(
            self.title,
            self.steps,
            self.other,
            self.difference,
            pn.FlexBox(self.save, self.copy, self.load),
            self.cell,
            **wide,
        )

    def refresh(self) -> None:
        """The steps there are, and the current one."""
        history = self.session.history
        options = {line: number for number, line in list_steps(history)}
        self._filling = True
        self.steps.param.update(options=options, value=history.at, size=min(VISIBLE_STEPS, max(4, len(options))))
        self.other.param.update(options=options, value=min(self.other.value or 0, len(options) - 1))
        self._filling = False
        branches = sum(not children for children in history.all_children())
        where = f", on one of {branches} branches" if branches > 1 else ""
        self.title.object = render_heading("What have I done?", f"Step {history.at} of {len(history.steps) - 1}{where}.")
        self.cell.value = session_file.write_session_code(self.session)
        self._compare()

    def _go(self, number: int) -> None:
        if not self._filling:
            self.notices.guard(lambda: self.live.choose(lambda: self.session.go(number)))

    def _compare(self) -> None:
        history = self.session.history
        sentences = describe_differences(history.steps[self.other.value or 0].choice, history.choice)
        self.difference.object = render_bullets(sentences or ["no differences"])

    def _file(self) -> io.BytesIO:
        return io.BytesIO(session_file.encode_session(self.session).encode())

    def _take_up(self, content: bytes | None) -> None:
        if content:
            session_file.restore_session(self.session, content)
            self.live.announce("choice", "selection")


def list_steps(history: History) -> list[tuple[int, str]]:
    """Every step as a line, below the step it follows; a branch is indented."""
    lines: list[tuple[int, str]] = []
    all_children = history.all_children()
    waiting = [(0, 0)]
    while waiting:
        number, depth = waiting.pop()
        mark = "●" if number == history.at else "○"
        lines.append((number, f"{'  ' * depth}{mark} {number} · {history.words(number)}"))
        first, *branches = [[child] for child in all_children[number]] or [[]]
        waiting += [(branch, depth + 1) for (branch,) in reversed(branches)]
        waiting += [(child, depth) for child in first]
    return lines
