"""The comparison of saved models: measured as `wb.compare` measures, and texts beside each other."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import workbench as wb
from workbench.analysis.predictions.generation import write_together
from workbench.errors import ArtifactError
from workbench.models import ModelHandle
from workbench.session import Session, SharedModel
from workbench.views.theme import LIGHT
from workbench.widgets.predictions import model_comparison
from workbench.widgets.predictions.model_comparison import ModelComparison, Saved, load_contender


@pytest.fixture(scope="module")
def folders(shared: SharedModel, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two saved models."""
    root = tmp_path_factory.mktemp("saved")
    for bits in (4, 1):
        wb.save(wb.quantize_model(shared.model, wb.recipe("rtn", bits=bits, group=32)), root / f"rtn-{bits}")
    return [root / "rtn-4", root / "rtn-1"]


@pytest.fixture
def view(shared: SharedModel, folders: list[Path]) -> ModelComparison:
    return ModelComparison(Session(shared), threaded=False, folders=folders)


def test_every_model_is_measured_against_the_original(view: ModelComparison, shared: SharedModel, folders: list[Path]) -> None:
    assert "2 saved models are ready" in view.closest.answer.object
    view.tokens.value = 128
    view.go.clicks += 1
    table = view.table.set_index("model")
    assert list(table.index) == ["original", "rtn-4", "rtn-1"]
    expected = wb.compare(shared.model, wb.load(folders[1]), wb.text("evaluation"), tokens=128)
    assert table.loc["rtn-1", "kl"] == pytest.approx(expected.kl, rel=1e-4)
    assert table.loc["rtn-1", "perplexity"] == pytest.approx(expected.perplexity, rel=1e-4)
    assert table.loc["rtn-4", "megabytes"] == (folders[0] / "packed.safetensors").stat().st_size / 1e6
    assert table.loc["original", ["kl", "top1_agreement", "bits_per_weight"]].tolist() == [0.0, 1.0, 32.0]
    assert "rtn-4 is the closest to the original" in view.closest.answer.object
    assert "rtn-1 stores the least" in view.closest.answer.object


def test_figures_mark_the_chosen_one(view: ModelComparison) -> None:
    view.tokens.value = 128
    view.go.clicks += 1
    for chosen, frame in (("rtn-4", view.closest), ("rtn-1", view.reads)):
        view.which.value = chosen
        marks = frame.figure.plot["data"][0]
        edges = dict(zip(marks["text"], marks["marker"]["line"]["color"], strict=True))
        assert [name for name, edge in edges.items() if edge == LIGHT.accent] == [chosen]
    assert "original" in view.reads.figure.plot["data"][0]["text"]
    assert "rtn-4 has the lowest perplexity" in view.reads.answer.object


def test_the_text_of_any_of_them_is_compared_as_in_the_explorer(view: ModelComparison, folders: list[Path]) -> None:
    view.texts.prompt.value = "The small dog"
    view.which.value = "rtn-1"
    assert view.texts.prompt.value == "The small dog", "the prompt goes along"
    view.texts.tokens.value = 8
    view.texts.go.clicks += 1
    assert view.notices.messages == []
    saved = wb.load(folders[1])
    *_, wanted = write_together(view.session.model.language_model(), saved.language_model(), "The small dog", 8)
    assert view.texts.writing == wanted
    assert view.texts.divergence.figure is not None
    assert view.session.latest() == {}, "each model has a session of its own"


def test_folders_of_the_same_name_are_told_apart(shared: SharedModel, folders: list[Path], tmp_path: Path) -> None:
    other = shutil.copytree(folders[1], tmp_path / "rtn-4")
    view = ModelComparison(Session(shared), threaded=False, folders=[folders[0], other])
    assert view.which.options == ["rtn-4", "rtn-4 (2)"]
    assert [saved.contender.nominal_bits for saved in view.others.values()] == [4, 1]


def test_without_saved_models_it_says_what_to_do(shared: SharedModel) -> None:
    view = ModelComparison(Session(shared), threaded=False)
    assert "No saved model was given" in view.closest.answer.object
    assert (view.go.disabled, view.below.visible, view.texts) == (True, False, None)


def test_a_folder_made_from_another_model_is_explained(tiny_models: dict[str, Path], folders: list[Path]) -> None:
    view = ModelComparison(Session(wb.open_model(str(tiny_models["qwen3"]))), threaded=False, folders=folders[:1])
    assert "was quantized from" in view.notices.messages[0]
    assert "No saved model could be read; see the notice above" in view.closest.answer.object
    assert (view.go.disabled, view.below.visible) == (True, False)


def test_a_folder_that_holds_nothing_keeps_no_other_from_being_read(
    shared: SharedModel, folders: list[Path], tmp_path: Path
) -> None:
    view = ModelComparison(Session(shared), threaded=False, folders=[tmp_path, folders[1]])
    assert str(tmp_path) in view.notices.messages[0]
    assert view.which.options == ["rtn-1"]
    assert "1 saved model is ready" in view.closest.answer.object


def test_the_page_is_there_before_the_models_are_read(
    shared: SharedModel, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, read = threading.Event(), threading.Event()

    def slow(folder: Path, model: ModelHandle) -> Saved:
        read.set()
        gate.wait(30)
        return load_contender(folder, model)

    monkeypatch.setattr(model_comparison, "load_contender", slow)
    view = ModelComparison(Session(shared), folders=folders)
    assert read.wait(30)
    assert "Reading 2 saved models" in view.closest.answer.object
    assert view.go.disabled
    view.reading.jobs.cancel()
    gate.set()
    assert view.reading.jobs.job.wait(30)
    view.reading.jobs.look()
    assert view.which.options == [], "reading was cancelled"
    view.reading.jobs.resume()
    assert view.reading.jobs.job.wait(30)
    view.reading.jobs.look()
    assert view.which.options == ["rtn-4", "rtn-1"]
    assert not view.go.disabled
    assert view.opening.jobs.job.wait(30)
    view.opening.jobs.look()
    assert view.texts is not None


def test_a_model_lost_after_it_was_found_becomes_a_notice(view: ModelComparison) -> None:
    def lost() -> None:
        raise ArtifactError("packed.safetensors was changed")

    view.others["rtn-1"] = replace(view.others["rtn-1"], layers=lost)
    view.which.value = "rtn-1"
    assert view.notices.messages == ["packed.safetensors was changed"]
    view.which.value = "rtn-4"
    assert view.texts is not None
