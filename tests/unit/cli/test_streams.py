"""What a command prints: in any encoding, and one sentence where it cannot be written."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.cli import streams

RUN = "from workbench.cli import main; main()"


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        pytest.param("cp1252", "a-b × 2 -> 3 … µ é \\u65e5 \\U0001f600", id="windows"),
        pytest.param("latin-1", "a-b × 2 -> 3 ... \xb5 é \\u65e5 \\U0001f600", id="latin"),
        pytest.param("ascii", "a-b x 2 -> 3 ... u \\xe9 \\u65e5 \\U0001f600", id="ascii"),
        pytest.param("utf-8", "a−b × 2 → 3 … \xb5 é 日 😀", id="unicode"),
    ],
)
def test_signs_that_an_encoding_lacks(encoding: str, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    streams.adapt_streams()
    assert streams.is_unicode() == (encoding == "utf-8")
    stream.write("a−b × 2 → 3 … \xb5 é 日 😀")
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == written


def test_a_name_that_is_no_text_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    streams.adapt_streams()
    stream.write(os.fsdecode(b"model-\xff"))
    stream.flush()
    assert stream.buffer.getvalue() == b"model-\\udcff"


def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", RUN, *arguments]
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    return subprocess.run(command, check=False, **given)  # type: ignore[call-overload]


def test_json_in_a_windows_pipe_says_the_same() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    plain, narrow = run("recipes", "--json"), run("recipes", "--json", env=environment)
    assert narrow.returncode == 0
    assert json.loads(narrow.stdout.decode("cp1252")) == json.loads(plain.stdout)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        said = run("recipes", stdout=full)
        deaf = run("layers", "nowhere", stderr=full)
    assert said.returncode == 1
    assert said.stderr.startswith(b"error: standard output cannot be written: no space is left for it")
    assert said.stderr.count(b"\n") == 1
    assert (deaf.returncode, deaf.stdout) == (1, b"")


@pytest.mark.skipif(os.name != "posix", reason="this system has no closed pipes")
def test_a_closed_pipe_ends_without_a_word() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    said = run("recipes", stdout=writer)
    os.close(writer)
    assert (said.returncode, said.stderr) == (1, b"")
