"""The comparison of saved models: measured as `wb.compare` measures, and texts beside each other."""

from pathlib import Path

import pytest

import workbench as wb
from workbench.errors import ArtifactError
from workbench.session import Session, SharedModel
from workbench.widgets.model_comparison import ModelComparison


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
    assert "2 saved models are ready" in view.frame.answer.object
    view.tokens.value = 128
    view.go.clicks += 1
    table = view.table.set_index("model")
    assert list(table.index) == ["original", "rtn-4", "rtn-1"]
    expected = wb.compare(shared.model, wb.load(folders[1]), wb.text("evaluation"), tokens=128)
    assert table.loc["rtn-1", "kl"] == pytest.approx(expected.kl, rel=1e-4)
    assert table.loc["rtn-1", "perplexity"] == pytest.approx(expected.perplexity, rel=1e-4)
    assert table.loc["rtn-4", "megabytes"] == (folders[0] / "model.safetensors").stat().st_size / 1e6
    assert table.loc["original", ["kl", "top1_agreement", "bits_per_weight"]].tolist() == [0.0, 1.0, 32.0]
    assert "rtn-4 is the closest to the original" in view.frame.answer.object
    assert "rtn-1 stores the least" in view.frame.answer.object


def test_the_text_of_any_of_them_is_written(view: ModelComparison) -> None:
    view.which.value = "rtn-1"
    view.prompt.value = "The small dog"
    view.write.clicks += 1
    assert "The small dog" in view.pages.right.object
    assert view.notices.messages == []


def test_without_saved_models_it_says_what_to_do(shared: SharedModel) -> None:
    view = ModelComparison(Session(shared), threaded=False)
    assert "No saved model was named" in view.frame.answer.object
    assert (view.go.disabled, view.write.disabled) == (True, True)


def test_a_folder_that_holds_nothing_is_explained(shared: SharedModel, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        ModelComparison(Session(shared), threaded=False, folders=[tmp_path])
