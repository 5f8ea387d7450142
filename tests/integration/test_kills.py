"""Kills at random moments damage nothing, and the next run goes on; written in place, everything would be damaged."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
WORKS = ["sequence", "squeeze", "store", "session", "save"]


def kill_often(work: str, folder: Path, count: int, *words: str) -> dict[str, Any]:
    """Run `tests.kills` and return what it found."""
    command = [sys.executable, "-m", "tests.kills", work, str(folder), str(count), "0", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=280)
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout.splitlines()[-1])


@pytest.mark.complete
@pytest.mark.parametrize("work", WORKS)
def test_ten_kills_damage_nothing(tmp_path: Path, work: str) -> None:
    found = kill_often(work, tmp_path, 10)
    assert (found["damaged"], found["failed"], found["end"]) == ([], [], [])
    assert found["killed"] == 10


@pytest.mark.complete
@pytest.mark.parametrize("work", WORKS)
def test_what_is_written_in_place_is_damaged(tmp_path: Path, work: str) -> None:
    assert kill_often(work, tmp_path, 60, "planted")["damaged"]
