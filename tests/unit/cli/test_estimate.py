"""The command that estimates a run on many machines."""

import json
from collections.abc import Callable

import pytest

from tests.unit.cli.conftest import Said
from workbench.cluster import cost_model


def test_an_estimate(command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_model, "SHAPES", ((8, 32), (16, 32), (8, 64), (16, 64), (8, 128)))
    arguments = ("estimate", "builtin", "--recipe", "rtn:bits=4", "--machines", "1,4", "--cores", 2, "--price", 1)
    facts = json.loads(command(*arguments, "--json").out)
    assert [run["machines"] for run in facts["runs"]] == [1, 4]
    assert facts["weights"] == 4_718_592
    assert facts["runs"][0]["seconds"] > facts["runs"][1]["seconds"] > 0
    assert facts["runs"][0]["low"] <= facts["runs"][0]["seconds"] <= facts["runs"][0]["high"]
    said = command(*arguments)
    assert "builtin: 42 layers with 4.72 million weights" in said.out
    assert "an extrapolation from 5 matrices measured here on one thread" in said.out
    assert " s × weights" in said.out
    wrong = command("estimate", "builtin", "--recipe", "rtn", "--machines", "0")
    assert wrong.status == 2
    assert "must be numbers from 1 on" in " ".join(wrong.err.replace("│", " ").split())
