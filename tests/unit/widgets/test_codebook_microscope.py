"""The codebook under the microscope: marks link its sections, and an edit is measured before anything changes."""

import threading
from pathlib import Path

import pandas as pd
import pytest

import workbench as wb
from workbench.analysis.method import codewords
from workbench.analysis.weights import cached_tables
from workbench.quantized import QuantizedModel
from workbench.recipe import LayerPlan
from workbench.session import Session, SharedModel
from workbench.widgets.method.codebook_microscope import CodebookMicroscope, EditSection, PictureSection, PlaceSection, UseSection


@pytest.fixture
def made(session: Session) -> Session:
    """A session with a codebook of signs."""
    return quantize(session, "btc", transform="none")


def quantize(session: Session, preset: str, **settings: object) -> Session:
    session.use(wb.recipe(preset, **settings))
    for _ in session.quantize_steps():
        pass
    return session


@pytest.mark.parametrize("name", list(CodebookMicroscope.kinds))
@pytest.mark.parametrize(("preset", "said"), [(None, "not quantized yet"), ("rtn", "has no codebook")])
def test_without_a_codebook_there_is_a_sentence(session: Session, name: str, preset: str | None, said: str) -> None:
    if preset is not None:
        quantize(session, preset, group=32)
    view = CodebookMicroscope(session, threaded=False)
    view.section.value = name
    for frame in view[name].frames:
        assert frame.figure is None
        assert said in frame.answer.object


@pytest.mark.parametrize("preset", ["btc", "btc-planes", "btc-paper", "gptvq"])
def test_every_kind_of_codebook_is_shown(session: Session, preset: str) -> None:
    view = CodebookMicroscope(quantize(session, preset), threaded=False)
    view.live.mark(codes=[1, 2])
    for name in CodebookMicroscope.kinds:
        view.section.value = name
        assert all(frame.figure is not None for frame in view[name].frames) == (name != "Merge or revive")
        assert view[name].plane.visible == (preset == "btc-planes")
    assert view.notices.messages == []


def test_a_large_layer_is_read_beside_the_page(made: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    small = UseSection(made, threaded=False).frames[0].figure
    monkeypatch.setattr(cached_tables, "LIGHT", 0)
    gate, vector_errors = threading.Event(), codewords.compute_vector_errors

    def when_it_opens(*given: object) -> object:
        gate.wait(30)
        return vector_errors(*given)

    monkeypatch.setattr(codewords, "compute_vector_errors", when_it_opens)
    view, edit = UseSection(made, threaded=True), EditSection(made, threaded=True)
    assert view.frames[0].figure is None, "the page is there while the codebook is read"
    edit.buttons["Merge"].clicks += 1
    assert "is still being read; try again" in edit.notices.messages[0]
    gate.set()
    for section in (view, edit):
        section.study.jobs.job.wait(30)
        section.study.jobs.look()
    pd.testing.assert_frame_equal(view.frames[0].figure.table, small.table)
    monkeypatch.setattr(codewords, "compute_vector_errors", None)
    view.live.mark(codes=[1])  # what was read is drawn anew, and not read again
    assert view.frames[0].figure.plot != small.plot


def test_a_box_marks_codes_and_all_sections_follow(made: Session) -> None:
    use = UseSection(made, threaded=False)
    pictures, places = PictureSection(use.live), PlaceSection(use.live)
    assert "Select codes" in places.frames[0].answer.object
    use.frames[0].plot.selected_data = {"points": [{"curveNumber": 0, "pointNumber": 3}, {"curveNumber": 1, "pointNumber": 0}]}
    assert made.selection.codes == (3,)
    assert pictures.frames[0].figure.plot["data"][0]["y"][0] == "code 3"
    assert "Code 3:" in places.frames[0].answer.object
    assert "coded by code 3" in places.frames[1].answer.object


def test_another_plane_has_other_codes(session: Session) -> None:
    view = UseSection(quantize(session, "btc-planes"), threaded=False)
    first = view.frames[0].figure.table
    view.plane.value = 1
    assert not view.frames[0].figure.table.equals(first)


def test_an_edit_is_measured_and_kept_only_when_applied(made: Session) -> None:
    view, before = EditSection(made, threaded=False), made.result
    assert "is the least used" in view.frames[0].answer.object
    table = view.reading.table
    used = table[table["count"] > 0]["codeword"].tolist()
    view.code.value, view.into.value = used[:2]
    assert view.buttons["Apply"].disabled
    view.buttons["Merge"].clicks += 1
    assert view.notices.messages == []
    figures = view.frames[0].figure.table.set_index("figure")
    assert figures["before"]["weight error"] == before.relative_error
    assert figures["after"]["weight error"] != before.relative_error
    assert "to" in figures["interval"]["KL of this layer alone"]
    assert made.result is before
    view.buttons["Apply"].clicks += 1
    assert made.result.edits == (f"code {used[0]} merged into {used[1]}",)
    assert made.result.relative_error == figures["after"]["weight error"]
    assert before in made.results.values(), "what it was made from stays"
    assert view.buttons["Apply"].disabled
    view.buttons["Revive"].clicks += 1
    view.buttons["Apply"].clicks += 1
    assert made.result.edits[-1] == f"code {used[0]} revived"


def test_an_edit_of_another_result_is_forgotten(made: Session) -> None:
    view = EditSection(made, threaded=False)
    view.buttons["Merge"].clicks += 1
    assert view.edit is not None
    view.live.choose(lambda: made.use(wb.recipe("gptvq")))
    assert view.edit is None
    assert view.buttons["Apply"].disabled


def test_mistakes_become_notices(made: Session) -> None:
    view = EditSection(made, threaded=False)
    view.into.value = view.code.value
    view.buttons["Merge"].clicks += 1
    assert "cannot be merged into itself" in view.notices.messages[0]
    view.code.value = None
    view.buttons["Merge"].clicks += 1
    assert "the field Code is empty" in view.notices.messages[0]
    assert made.result.edits == ()


def test_an_encoder_has_no_kl(tiny_models: dict[str, Path]) -> None:
    session = quantize(Session(SharedModel(wb.open_model(tiny_models["bert"]))), "btc", transform="none")
    view = EditSection(session, threaded=False)
    view.buttons["Merge"].clicks += 1
    assert view.notices.messages == []
    assert not view.frames[0].figure.table["figure"].str.contains("KL").any()


def test_an_edit_is_saved_with_its_layer(made: Session, tmp_path: Path) -> None:
    view = EditSection(made, threaded=False)
    view.buttons["Merge"].clicks += 1
    view.buttons["Apply"].clicks += 1
    plan = LayerPlan(((made.layer, made.recipe),))
    whole = QuantizedModel(str(made.model.source), {made.layer: made.result}, plan)
    folder = wb.save(whole, tmp_path / "out", made.model)
    assert wb.load(folder).quantized.layers[made.layer].edits == made.result.edits
