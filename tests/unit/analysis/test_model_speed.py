"""Whole models beside each other: turns, rows, the parts of a token, and files that cannot be run."""

from pathlib import Path

import pytest
import torch

import workbench as wb
from workbench.analysis.predictions import model_speed
from workbench.analysis.predictions.model_speed import (
    NEW_TOKENS,
    ROUNDS,
    SHORT_PROMPT_TOKENS,
    Contestant,
    check_gguf,
    enter_model,
    enter_transformers,
    measure_models,
)
from workbench.errors import ModelError


class CountedText:
    """A text that notes what is read in it."""

    def __init__(self, log: list[list[int]]) -> None:
        self.lengths: list[int] = []
        log.append(self.lengths)

    def read(self, ids: torch.Tensor) -> object:
        self.lengths.append(ids.shape[1])
        return None


def test_contestants_take_turns_and_read_the_same(builtin: wb.models.ModelHandle) -> None:
    texts: dict[str, list[list[int]]] = {"a": [], "b": []}
    order: list[str] = []

    def enter(name: str) -> Contestant:
        def begin() -> CountedText:
            order.append(name)
            return CountedText(texts[name])

        return Contestant(name, begin, 100, 512, lambda: 7)

    speeds = measure_models(lambda _: [enter("a"), enter("b")], builtin.language_model(), threads=[1])
    assert order == ["a", "a", "b", "b"] * (ROUNDS + 1)
    prompt = 100 - SHORT_PROMPT_TOKENS - NEW_TOKENS
    assert texts["a"] == texts["b"] == [[prompt], [SHORT_PROMPT_TOKENS, *[1] * NEW_TOKENS]] * (ROUNDS + 1)
    assert speeds.prompt_tokens == prompt
    assert speeds.table()[["name", "threads", "resident_bytes"]].to_numpy().tolist() == [["a", 1, 7], ["b", 1, 7]]


def test_a_packed_model_beside_its_original(builtin: wb.models.ModelHandle) -> None:
    packed = wb.pack_model(wb.quantize_model(builtin, wb.recipe("binary")), builtin)
    plain = builtin.to_transformers()
    done: list[float] = []
    before = torch.get_num_threads()
    speeds = measure_models(
        lambda _: [enter_model("packed", packed), enter_transformers("plain", plain, packed)],
        packed,
        threads=[1],
        on_progress=lambda share, _: done.append(share),
    )
    assert [row.name for row in speeds.rows] == ["packed", "plain"]
    assert all(row.low <= row.decode <= row.high and row.prefill > 0 and row.first_token > 0 for row in speeds.rows)
    assert speeds.rows[1].resident_bytes > 4 * speeds.rows[0].resident_bytes
    assert done == sorted(done)
    assert done[-1] == 1
    assert torch.get_num_threads() == before
    parts = speeds.parts
    assert parts.token > 0
    assert parts.remainder == pytest.approx(max(0, parts.token - parts.matrices - parts.head))
    assert speeds.to_dict()["parts"]["remainder"] == parts.remainder
    assert speeds.refusal is None


def test_a_gguf_file_that_cannot_be_run_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(model_speed, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs llama\.cpp, which is not installed; run: pip install"):
        check_gguf(tmp_path / "model.gguf")
    monkeypatch.setattr(model_speed, "find_spec", lambda name: name)
    with pytest.raises(ModelError, match="is no file; give a GGUF file"):
        check_gguf(tmp_path / "model.gguf")


def test_transformers_reads_as_the_model_does(builtin: wb.models.ModelHandle) -> None:
    lm = builtin.language_model()
    text = model_speed._ForwardPass(lm.module)
    ids = lm.encode("Once upon a time")
    with torch.inference_mode():
        text.read(ids[:, :-1])
        logits = text.read(ids[:, -1:])
    assert isinstance(logits, torch.Tensor)
    torch.testing.assert_close(logits[0, -1], lm.logits(ids)[0, -1], atol=1e-4, rtol=1e-4)
