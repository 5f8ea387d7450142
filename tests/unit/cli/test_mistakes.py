"""A user's mistake is one line that helps, with status 1; wrong usage is status 2; a bug keeps its traceback."""

from collections.abc import Callable
from pathlib import Path

import pytest

import workbench.models
from tests.unit.cli.conftest import Said

LAYER = "model.layers.0.mlp.down_proj"


QUANTIZE = ["quantize", "builtin", "--out", "OUT", "--recipe"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["layers", "nowhere"], "there is no folder 'nowhere'; use 'builtin'", id="no-such-model"),
        pytest.param(["eval", "builtin", "--text", "nowhere.txt"], "there is no text file 'nowhere.txt'", id="no-such-text"),
        pytest.param([*QUANTIZE, "rnt"], "Did you mean 'rtn'?", id="recipe-misspelt"),
        pytest.param([*QUANTIZE, "rtn:bits"], "'bits' is not key=value; write for example rtn:bits=", id="no-value"),
        pytest.param([*QUANTIZE, "rtn:bitz=2"], "Did you mean 'bits'?", id="setting-misspelt"),
        pytest.param([*QUANTIZE, "rtn:bits=2,group=7"], "group size 7", id="group-does-not-divide"),
        pytest.param([*QUANTIZE, "rtn", "--layers", "x*"], "match none of 42 layers", id="pattern-matches-nothing"),
        pytest.param(["whatif", "builtin", "--layer", "mlp", "--recipe", "rtn"], "unknown layer 'mlp'", id="no-such-layer"),
        pytest.param(["compare", "builtin", "nowhere"], "there is no folder 'nowhere'", id="no-such-result"),
        pytest.param(["bench", "--shape", "64"], "--shape '64'; give rows and columns", id="bench-shape"),
        pytest.param(["bench", "--threads", "two"], "--threads 'two'; give whole numbers", id="bench-threads"),
        pytest.param(["bench", "--formats", "w5"], "unknown bench format 'w5'", id="bench-format"),
        pytest.param(["explore", "nowhere"], "there is no folder 'nowhere'", id="explore-nothing"),
    ],
)
def test_mistake_is_one_line(command: Callable[..., Said], tmp_path: Path, arguments: list[str], message: str) -> None:
    out = tmp_path / "out"
    said = command(*(str(out) if word == "OUT" else word for word in arguments))
    assert said.status == 1, said.err
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert message in said.err
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["squeeze"], id="unknown-command"),
        pytest.param(["layers"], id="model-missing"),
        pytest.param(["compare", "builtin"], id="folder-missing"),
        pytest.param(["quantize", "builtin", "--out", "x"], id="recipe-missing"),
        pytest.param(["eval", "builtin", "--tokens", "few"], id="not-a-number"),
        pytest.param(["eval", "builtin", "--tokens", "0"], id="out-of-range"),
        pytest.param(["whatif", "builtin", "--layer", LAYER], id="what-if-recipe-missing"),
    ],
)
def test_wrong_usage_is_two(command: Callable[..., Said], arguments: list[str]) -> None:
    said = command(*arguments)
    assert said.status == 2
    assert said.out == ""
    assert "Usage: workbench" in said.err


def test_a_bug_is_not_dressed_up_as_a_mistake(command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: str) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(workbench.models, "open_model", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        command("layers", "builtin")
