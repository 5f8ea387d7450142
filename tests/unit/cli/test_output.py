"""What a command prints fits a terminal, and says nothing on standard error that is not its own."""

import importlib
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import workbench.models
from workbench.cli import main
from workbench.cli.output import fold_line
from workbench.errors import ModelError, WorkbenchWarning
from workbench.presets import find, list_presets

LAYER = "model.layers.0.self_attn.k_proj"
LONGEST = "and its differences from what is written in the paper, which are these and those, and then a few more of them"


@pytest.mark.parametrize(
    "words",
    [
        ["recipes"],
        ["recipes", "gptq"],
        ["layers", "builtin"],
        ["eval", "builtin", "--tokens", "700"],
        ["whatif", "builtin", "--layer", "model.layers.0.self_attn.k_proj", "--recipe", "rtn:bits=2", "--tokens", "600"],
        ["quantize", "builtin", "--recipe", "rtn:bits=2", "--layers", "*.0.*_proj", "--tokens", "64", "--out", "out"],
        ["kv", "builtin", "--scheme", "kivi", "--tokens", "100"],
    ],
    ids=" ".join,
)
def test_no_line_is_wider_than_the_terminal(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["workbench", *words])
    with pytest.raises(SystemExit, match="0"):
        main()
    printed = capsys.readouterr().out
    assert printed.strip()
    assert [line for line in printed.splitlines() if len(line) > 80] == []


def test_a_long_line_is_folded_below_its_label() -> None:
    lines = fold_line(f"  perplexity       {LONGEST}", 60).split("\n")
    assert max(map(len, lines)) <= 60
    assert lines[0].startswith("  perplexity       and its")
    assert all(line.startswith(" " * 19) and line[19] != " " for line in lines[1:])
    assert fold_line("short", 60) == "short"
    assert fold_line("/a/path/" + "x" * 80, 60) == "/a/path/" + "x" * 80


def test_nothing_is_folded_or_bold_in_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.argv", ["workbench", "recipes"])
    with pytest.raises(SystemExit, match="0"):
        main()
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    for name in list_presets():
        preset = find(name)
        row = f"{name} {preset.default_bits:.3g} {'needed' if preset.calibrated else 'none'} {preset.summary}"
        assert row in {" ".join(line.split()) for line in printed.splitlines()}


def test_only_warnings_of_this_package_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def warn(source: str, adapter: object) -> None:
        for category in (UserWarning, FutureWarning, DeprecationWarning):
            warnings.warn("of a library", category, stacklevel=1)
        warnings.warn("of this\n   package", WorkbenchWarning, stacklevel=1)
        raise ModelError("there is no model.")

    monkeypatch.setattr(workbench.models, "open_model", warn)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))  # where no list of layers is stored
    monkeypatch.setattr("sys.argv", ["workbench", "layers", "builtin"])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(SystemExit, match="1"):
            main()
    assert capsys.readouterr().err == "warning: of this package\nerror: there is no model.\n"


@pytest.mark.parametrize(
    ("words", "label"),
    [
        (["eval", "builtin", "--tokens", "700"], "reading the text"),
        (["kv", "builtin", "--scheme", "kivi", "--tokens", "100"], "kivi"),
        (["whatif", "builtin", "--layer", LAYER, "--recipe", "rtn", "--tokens", "100"], "comparing"),
    ],
    ids=["eval", "kv", "whatif"],
)
def test_a_command_that_takes_long_shows_how_far_it_is(
    words: list[str], label: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: dict[str, list[float]] = {}

    @contextmanager
    def show(label: str, *, quiet: bool) -> Iterator[Callable[[float, float], None]]:
        yield lambda done, total: shown.setdefault(label, []).append(done / total)

    for module in (
        "workbench.cli.evaluate",
        "workbench.cli.measure",
        "workbench.cli.kv",
    ):  # the first and the last are also names of functions
        monkeypatch.setattr(importlib.import_module(module), "show_progress", show)
    monkeypatch.setattr("sys.argv", ["workbench", *words])
    with pytest.raises(SystemExit, match="0"):
        main()
    (fractions,) = [fractions for name, fractions in shown.items() if name.startswith(label)]
    assert (fractions[0], fractions[-1]) == (0, 1)
    assert fractions == sorted(fractions)
    assert capsys.readouterr().err == ""


def test_a_command_that_works_writes_nothing_on_standard_error() -> None:
    """Deprecations of libraries are none of a user's business."""
    words = [sys.executable, "-c", "from workbench.cli import main; main()", "eval", "builtin", "--tokens", "20"]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    assert "no interval: one document of 20 tokens" in ended.stdout
