"""Figures of a large matrix: worked out in a job, kept by content, drawn when they are there; the latest wish wins."""

import threading
from pathlib import Path

import pandas as pd
import panel as pn
import pytest
import torch

import workbench as wb
from workbench.analysis.weights import cached_tables, distribution
from workbench.analysis.weights.cached_tables import Portrait
from workbench.session import Session, SharedModel
from workbench.store import Store
from workbench.widgets.base.background_figure import Study
from workbench.widgets.base.notices import Notices
from workbench.widgets.weights.weight_inspector import WeightInspector

WEIGHT = torch.randn(12, 20, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every matrix counts as a large one, and the store is empty."""
    monkeypatch.setattr(cached_tables, "LIGHT", 0)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))


@pytest.mark.parametrize("name", list(WeightInspector.kinds))
def test_a_large_layer_shows_what_a_small_one_does(
    shared: SharedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    session = Session(shared, recipe=wb.recipe("rtn", bits=2, group=32))
    for _ in session.quantize_steps():
        pass

    def tables() -> list[pd.DataFrame]:
        view = WeightInspector(session, threaded=False)
        view.section.value = name
        section = view[name]
        assert view.notices.messages == []
        return [frame.figure.table for frame in (section.frames.values() if name == "Ranges" else [section.frame])]

    small = tables()
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(cached_tables, "LIGHT", 0)
    for _ in range(2):  # worked out, then found
        for one, other in zip(tables(), small, strict=True):
            pd.testing.assert_frame_equal(one, other, check_dtype=False, rtol=1e-6)


def test_a_table_is_worked_out_once_for_the_same_weights(large: None, tmp_path: Path) -> None:
    reads: list[str] = []

    def looked_at(content: str) -> Portrait:
        return Portrait((12, 20), lambda: (content,), lambda: reads.append(content) or WEIGHT, Store(tmp_path))

    first = looked_at("a").table("ranges", lambda w: distribution.tabulate_ranges(w, "row"))
    again = looked_at("a").table("ranges", lambda w: distribution.tabulate_ranges(w, "row"))
    pd.testing.assert_frame_equal(first, again)
    assert reads == ["a"]
    looked_at("b").table("ranges", lambda w: distribution.tabulate_ranges(w, "row"))
    looked_at("a").table("ranges", lambda w: distribution.tabulate_ranges(w, "row"), "of another")
    assert reads == ["a", "b", "a"]


def test_one_stored_code_makes_another_matrix(session: Session) -> None:
    for _ in session.quantize_steps():
        pass
    packed = session.result.packed
    before = cached_tables.list_packed_content(packed)
    before = cached_tables.compute_key(*before)
    packed.tensors["codes"].view(-1)[0] ^= 1
    assert cached_tables.compute_key(*cached_tables.list_packed_content(packed)) != before


def test_the_page_goes_on_while_figures_are_worked_out_and_the_latest_wish_wins() -> None:
    study, gate, drawn = Study(pn.Column(), Notices(), threaded=True), threading.Event(), []
    study.run([lambda: gate.wait(30)], lambda found: drawn.append(("first", found)), at_once=False)
    assert study.jobs.running, "run came back while the work waits"
    study.run([lambda: "second"], drawn.append, at_once=False)
    gate.set()
    study.jobs.job.wait(30)
    study.jobs.look()
    study.jobs.job.wait(30)
    study.jobs.look()
    assert drawn == ["second"]
    assert not study.jobs.view.visible


def test_what_is_there_at_once_is_not_drawn_over_by_an_earlier_wish() -> None:
    study, gate, drawn = Study(pn.Column(), Notices(), threaded=True), threading.Event(), []
    study.run([lambda: gate.wait(30)], lambda found: drawn.append(("first", found)), at_once=False)
    study.run([lambda: "second"], drawn.append, at_once=True)
    assert drawn == ["second"]
    gate.set()
    study.jobs.job.wait(30)
    study.jobs.look()
    assert drawn == ["second"]
    assert not study.jobs.view.visible


def test_empty_axes_are_hidden_until_something_is_drawn_and_then_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.widgets.base.background_figure.PATIENCE", 0)
    study, gate = Study(pn.Column(), Notices(), threaded=True), threading.Event()
    study.run([lambda: gate.wait(30)], lambda _: None, at_once=False)
    study.jobs.look()
    assert not study.body.visible
    gate.set()
    study.jobs.job.wait(30)
    study.jobs.look()
    assert study.body.visible
    gate.clear()
    study.run([lambda: gate.wait(30)], lambda _: None, at_once=False)
    study.jobs.look()
    assert (study.body.visible, study.body.styles["opacity"]) == (True, "0.45")
    gate.set()
    study.jobs.job.wait(30)
