"""The command line, run inside this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from workbench.cli import main


@dataclass(frozen=True)
class Said:
    """What one command answered."""

    status: int
    out: str
    err: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Run `workbench <arguments>` as the console script does."""

    def run(*arguments: object) -> Said:
        monkeypatch.setenv("COLUMNS", "400")  # sentences in one line each
        monkeypatch.setattr(sys, "argv", ["workbench", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as exit:
            status = int(exit.code or 0)
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return run
