"""The command that sweeps recipes and seeds over layers."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Said


def test_the_command_finds_its_results_again(
    command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    arguments = (
        "sweep",
        "builtin",
        "--recipe",
        "rtn:bits=4,clip=none",
        "--recipe",
        "rtn:bits=2,clip=none",
        "--layers",
        "*.0.mlp.*",
        "--by-layer",
    )
    first, second = command(*arguments), command(*arguments)
    assert (first.status, second.status) == (0, 0)
    assert "6 tasks: 0 were in the cache, 6 ran" in first.out
    assert "6 tasks: 6 were in the cache, 0 ran" in second.out
    assert first.out.partition("tasks:")[0] == second.out.partition("tasks:")[0]
    wrong = command(*arguments, "--seeds", "0,x")
    assert wrong.status == 2
    assert "must be whole numbers separated by commas" in " ".join(wrong.err.replace("│", " ").split())
