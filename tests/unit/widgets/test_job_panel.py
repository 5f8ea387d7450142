"""JobPanel: one job at a time, its state in words, and what becomes of it when it is stopped, fails or is taken up again."""

from collections.abc import Iterator

import pytest

from workbench.errors import WorkbenchError
from workbench.jobs import Job, Status
from workbench.quantizers.contract import Snapshot
from workbench.widgets.base import job_panel
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.markup import render_paragraph
from workbench.widgets.base.notices import Notices
from workbench.widgets.panel_patches.render_probe import Drawn


@pytest.fixture
def panel() -> JobPanel:
    return JobPanel(Notices(), threaded=False)


def four_steps() -> Iterator[Snapshot]:
    for done in range(1, 5):
        yield Snapshot("block", done, 4, {})


def failing() -> Iterator[None]:
    yield None
    raise WorkbenchError("the layer is on fire; pour water on it.")


def test_a_job_ends_with_its_time_and_memory(panel: JobPanel) -> None:
    ended: list[Status] = []
    panel.run(four_steps, "counting", ended=lambda job: ended.append(job.status))
    assert ended == [Status.DONE]
    assert "Done: counting, " in panel.words.object
    assert "memory at most" in panel.words.object
    assert panel.peak > 1_000_000
    assert (panel.running, panel.stop.visible, panel.again.visible, panel.progress.visible) == (False, False, False, False)


def test_nothing_begins_for_a_visitor_who_has_left(panel: JobPanel) -> None:
    panel.close()
    panel.run(four_steps, "counting")
    assert panel.job is None
    assert not panel.running


def test_a_notebooks_page_is_told_nothing_before_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[None] = []
    panel = JobPanel(Notices(), threaded=False)
    panel.page = Drawn()
    panel.run(four_steps, "counting")
    monkeypatch.setattr(panel, "look", lambda: looks.append(None))
    panel._look_on_page()
    assert looks == []
    panel.page.there = True
    panel._look_on_page()
    assert len(looks) == 1
    panel.page.there = False
    monkeypatch.setattr(job_panel, "DRAWN", 0.0)
    panel._look_on_page()
    assert len(looks) == 2, "a page that never says that it is there is told after a while, also of a job that took a moment"


def test_a_cell_that_takes_long_leaves_the_page_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = [0.0], []
    monkeypatch.setattr(job_panel.time, "monotonic", lambda: clock[0])
    panel = JobPanel(Notices(), threaded=False)
    panel.page = Drawn()
    panel.run(four_steps, "counting")
    monkeypatch.setattr(panel, "look", lambda: looks.append(clock[0]))
    for clock[0] in (100.0, 101.0, 100.0 + job_panel.DRAWN, 100.5 + job_panel.DRAWN):  # the cell took 100 seconds
        panel._look_on_page()
    assert looks == [100.5 + job_panel.DRAWN]


def test_a_failed_job_is_a_notice_and_can_be_taken_up_again(panel: JobPanel) -> None:
    turns = iter([failing(), four_steps()])
    panel.run(turns.__next__, "burning")
    assert panel.notices.messages == ["the layer is on fire; pour water on it."]
    assert "Failed: burning" in panel.words.object
    assert panel.again.visible
    panel.again.clicks += 1
    assert "Done: burning" in panel.words.object
    assert not panel.again.visible


class Looked(Job[None]):
    """A job that is running at the first look at its status and done at the next, as when its thread ends in between."""

    looks = 0

    @property
    def status(self) -> Status:
        self.looks += 1
        return Status.RUNNING if self.looks == 1 else Status.DONE


def test_a_job_that_ends_while_it_is_looked_at_is_looked_at_again(panel: JobPanel) -> None:
    seen: list[object] = []
    panel._on_step = lambda job: seen.append(job.latest)
    panel._go(Looked(four_steps), lambda job: job._finished.set())
    assert panel.running
    panel.look()
    assert not panel.running
    assert len(seen) == 2


def test_while_one_job_runs_no_other_starts(panel: JobPanel) -> None:
    names: list[str] = []

    def busy() -> Iterator[None]:
        panel.run(four_steps, "another", ended=lambda job: names.append(job.name))
        yield None

    panel.run(busy, "first", ended=lambda job: names.append(job.name))
    assert names == ["first"]


def test_a_running_job_tells_how_far_it_is_or_what_it_is_told_to(panel: JobPanel) -> None:
    words: list[str] = []

    def steps() -> Iterator[Snapshot]:
        for step in four_steps():
            yield step
            panel.look()
            words.append(panel.words.object)

    panel.run(steps, "counting")
    assert "Counting: 50% after" in words[1]
    panel.run(steps, "counting", on_step=lambda job: f"Step {job.latest.done}.")
    assert words[5] == render_paragraph("Step 2.", live=False)


def test_a_cancelled_job_stops_and_says_so(panel: JobPanel) -> None:
    def steps() -> Iterator[Snapshot]:
        yield from four_steps()
        panel.stop.clicks += 1
        yield Snapshot("block", 4, 4, {})
        raise AssertionError("it was cancelled before")

    panel.run(steps, "counting")
    assert "Cancelled: counting" in panel.words.object


def test_the_latest_job_takes_the_place_of_the_one_that_runs(panel: JobPanel) -> None:
    ended: list[tuple[str, Status]] = []

    def note(job: Job[None]) -> None:
        ended.append((job.name, job.status))

    def busy() -> Iterator[None]:
        for name in ("second", "third"):
            panel.run(four_steps, name, ended=note, latest=True)
        assert panel.waits
        yield None

    panel.run(busy, "first", ended=note)
    assert ended == [("first", Status.CANCELLED), ("third", Status.DONE)]
    assert not panel.running
