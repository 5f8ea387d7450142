"""Calibration on disk: the same statistics come back, and only for the same weights, text, tokens, seed and layers."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from workbench.calibration import CalibrationStats, calibrate
from workbench.models import ModelHandle, open_model
from workbench.models.builtin import BUILTIN_FOLDER
from workbench.models.text import Text
from workbench.store import Store

TEXT = Text("two", ("Tom had a red ball.", "Lily saw a big dog in the park."))


def no_pass(*_: object, **__: object) -> None:
    pytest.fail("the model ran although the statistics are stored")


def equal(a: CalibrationStats, b: CalibrationStats) -> bool:
    return all(torch.equal(getattr(a[n], part), getattr(b[n], part)) for n in a for part in ("moment", "mean", "absmax"))


def test_stored_statistics_come_back_without_a_pass(
    builtin: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    first = calibrate(builtin, TEXT, store=store)
    monkeypatch.setattr(builtin.module, "forward", no_pass)
    second = calibrate(builtin, TEXT, store=store)
    assert list(second) == list(first)
    assert equal(first, second)
    assert second.facts() == first.facts()
    query, key = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"
    assert second[query] is second[key]  # what layers share is shared again


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"tokens": 9}, {"layers": ["model.layers.0.mlp.down_proj"]}, {"text": Text("one", TEXT.documents[:1])}],
    ids=["seed", "tokens", "layers", "text"],
)
def test_anything_else_is_measured_anew(builtin: ModelHandle, tmp_path: Path, change: dict) -> None:
    store = Store(tmp_path)
    calibrate(builtin, TEXT, store=store)
    given = {"text": TEXT, **change}
    stored, fresh = calibrate(builtin, **given, store=store), calibrate(builtin, **given)
    assert list(stored) == list(fresh)
    assert stored.facts() == fresh.facts()
    assert equal(stored, fresh)


def test_another_tokenizer_beside_the_same_weights_is_measured_anew(tmp_path: Path) -> None:
    store, name = Store(tmp_path / "store"), "model.layers.0.mlp.down_proj"
    shutil.copytree(BUILTIN_FOLDER, tmp_path / "first", ignore=shutil.ignore_patterns("text", "*.py"))
    calibrate(open_model(tmp_path / "first"), TEXT, layers=[name], store=store)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    path = tmp_path / "second" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))  # no beginning-of-text token
    second = open_model(tmp_path / "second")
    stored, fresh = calibrate(second, TEXT, layers=[name], store=store), calibrate(second, TEXT, layers=[name])
    assert equal(stored, fresh)
