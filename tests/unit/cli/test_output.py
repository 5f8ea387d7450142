"""What a command prints fits a terminal, and says nothing on standard error that is not its own."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from workbench.cli import main
from workbench.cli.output import fold_line, format_table

LONGEST = "and its differences from what is written in the paper, which are these and those, and then a few more of them"


@pytest.mark.parametrize(
    "words",
    [
        ["recipes"],
        ["layers", "builtin"],
        ["eval", "builtin", "--tokens", "700"],
        ["whatif", "builtin", "--layer", "model.layers.0.self_attn.k_proj", "--recipe", "rtn:bits=2", "--tokens", "600"],
        ["quantize", "builtin", "--recipe", "rtn:bits=2", "--layers", "*.0.*_proj", "--tokens", "64", "--out", "out"],
        ["kv", "builtin", "--scheme", "kivi", "--tokens", "100"],
    ],
    ids=lambda words: words[0],
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


def test_a_table_has_short_numbers_and_headers_over_several_lines() -> None:
    table = pd.DataFrame({"name": ["a.b", "c"], "bits_per_weight": [2.140625, 16.0], "output_error": [0.123456, float("nan")]})
    assert format_table(table).split("\n") == [
        "        bits",
        "         per  output",
        "name  weight   error",
        "a.b     2.14   0.123",
        "c      16.00       –",
    ]


def test_a_command_that_works_writes_nothing_on_standard_error() -> None:
    """Deprecations of libraries are none of a user's business."""
    words = [sys.executable, "-c", "from workbench.cli import main; main()", "eval", "builtin", "--tokens", "20"]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    assert "no interval: one document of 20 tokens" in ended.stdout
