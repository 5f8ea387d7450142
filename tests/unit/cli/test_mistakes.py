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
        pytest.param(["compare", "builtin", "builtin", "--kl-base", "nowhere"], "nowhere cannot be read (No such", id="no-base"),
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


OUTPUTS = {
    "quantize": ["quantize", "builtin", "--recipe", "rtn", "--out", "OUT"],
    "allocate": ["allocate", "builtin", "--bits", "3", "--recipe", "rtn:bits=2", "--recipe", "rtn:bits=4", "--out", "OUT"],
    "card": ["card", "builtin", "--out", "OUT.html"],
    "compare": ["compare", "builtin", "builtin", "--write-kl-base", "OUT"],
}


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize(
    ("place", "message"),
    [
        pytest.param("file/below", "is a file; give a path in a folder", id="below-a-file"),
        pytest.param("n" * 300, "bytes, but at most 255 are allowed", id="long-name"),
        pytest.param("dangling/out", "is a link to nowhere, which does not exist", id="dangling-link"),
    ],
)
def test_an_output_is_checked_before_any_work(
    command: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str, message: str
) -> None:
    def work(*_: object) -> None:
        pytest.fail("work has begun")

    monkeypatch.setattr(workbench.models, "open_model", work)
    monkeypatch.setattr("workbench.views.decisions.quant_card.card", work)
    (tmp_path / "file").write_text("content")
    (tmp_path / "dangling").symlink_to("nowhere")
    said = command(*(word.replace("OUT", str(tmp_path / place)) for word in OUTPUTS[name]))
    assert said.status == 1
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert message in said.err


def test_what_the_system_says_is_a_sentence(
    command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(source: str, adapter: None) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(workbench.models, "open_model", full)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))  # where no list of layers is stored
    said = command("layers", "builtin")
    assert said.status == 1
    assert said.err == (
        "error: somewhere cannot be used: no space is left for it (No space left on device); free some, or give a path on a "
        "larger disk.\n"
    )


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
        pytest.param(["eval", "builtin", "--limit", "3"], id="limit-without-tasks"),
    ],
)
def test_wrong_usage_is_two(command: Callable[..., Said], arguments: list[str]) -> None:
    said = command(*arguments)
    assert said.status == 2
    assert said.out == ""
    assert "Usage: workbench" in said.err


def test_a_bug_is_not_dressed_up_as_a_mistake(
    command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(source: str, adapter: None) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(workbench.models, "open_model", broken)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        command("layers", "builtin")
