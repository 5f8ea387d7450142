"""Text that a model writes itself."""

from pathlib import Path

import pytest

from workbench.errors import ModelError
from workbench.jobs import run_steps
from workbench.models import open_model
from workbench.models.written_text import write_text, write_text_steps
from workbench.store import Store


def test_documents_are_predicted_well() -> None:
    model = open_model("builtin")
    one = write_text(model, 400)
    assert sum(model.encode(document).shape[1] for document in one.documents) >= 400
    # at temperature one the mean surprise is the entropy of the predictions: far below that of text by another hand
    assert model.perplexity(one).perplexity < 8


def test_it_is_read_from_the_store_the_second_time(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model, store = open_model(tiny_models["llama"]), Store(tmp_path)
    one = write_text(model, 40, store=store)
    seen: list[int] = []
    assert run_steps(write_text_steps(model, 40, store=store), seen.append) == one
    assert not seen


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_cached_steps_write_what_whole_passes_would(
    tiny_models: dict[str, Path], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(tiny_models[family])
    cached = write_text(model, 40)
    monkeypatch.setattr("workbench.models.written_text.find_cache_argument", lambda _: None)
    assert write_text(model, 40) == cached


def test_documents_are_drawn_by_the_seed(tiny_models: dict[str, Path]) -> None:
    model = open_model(tiny_models["llama"])
    assert write_text(model, 40) == write_text(model, 40)
    assert write_text(model, 40) != write_text(model, 40, seed=1)


def test_what_cannot_be_written_is_said(tiny_models: dict[str, Path]) -> None:
    model = open_model(tiny_models["llama"])
    with pytest.raises(ModelError, match="0 tokens to write; use 1 or more"):
        write_text(model, 0)
    model.tokenizer.bos_token = model.tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no token that a text begins with"):
        write_text(model, 10)
