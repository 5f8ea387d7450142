"""`workbench squeeze` builds the slider's stops and says what they are; the second time it only reads them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.analysis.test_squeeze import SMALL, squeeze_of
from tests.unit.cli.conftest import Said
from workbench.artifact import load


def test_stops_are_built_once_and_shown(
    command: Callable[..., Said], tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "workbench.analysis.decisions.squeeze.Squeeze", lambda model, seed: squeeze_of(model, tmp_path, seed=seed)
    )
    model = str(tiny_models["llama"])
    first = command("squeeze", model, "--json")
    said = json.loads(first.out)
    assert (said["model"], said["seed"]) == (model, 0)
    assert [stop["recipe"] for stop in said["stops"]] == [stop.preset for stop in SMALL]
    for stop in said["stops"]:
        if stop["recipe"] == "none":
            assert Path(stop["folder"]) == tiny_models["llama"], "of the original no copy is saved"
        else:
            saved = load(stop["folder"])
            assert (stop["bits_per_weight"], stop["bytes"]) == (saved.bits_per_weight, saved.bytes)
        assert stop["perplexity_low"] <= stop["perplexity"] <= stop["perplexity_high"]
    assert command("squeeze", model, "--json").out == first.out, "what is there is only read"
    text = command("squeeze", model).out
    assert "gptq:bits=1,group=32" in text
    assert "saved models in" in text
