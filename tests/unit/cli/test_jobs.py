"""The commands that list, cancel and resume runs; a killed run goes on to the same result."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Said
from workbench.run_records import PAGE_ARGUMENTS, RunState, start_run

SWEEP = ("sweep", "builtin", "--recipe", "rtn:bits=4,clip=none", "--layers", "*.0.mlp.*")
QUANTIZE = ("quantize", "builtin", "--recipe", "gptq:bits=3", "--tokens", "256")
FEW = (*QUANTIZE, "--layers", "*.[01].*")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_finished_run_is_listed(command: Callable[..., Said]) -> None:
    assert command("jobs").out == "no long run is recorded here\n"
    assert command(*SWEEP).status == 0
    (run,) = json.loads(command("jobs", "--json").out)["runs"]
    assert (run["state"], run["fraction"], run["arguments"]) == ("finished", 1, list(SWEEP))
    assert f"{run['id']}  finished  100%" in command("jobs").out
    again = command("jobs", "resume", run["id"])
    assert (again.status, again.err) == (1, f"error: {run['id']} is finished; to run it again: {run['command']}\n")


def test_a_mistake_is_a_failed_run_and_a_typing_error_none(command: Callable[..., Said]) -> None:
    assert command("sweep", "builtin", "--recipe", "rtn", "--seeds", "x").status == 2
    assert command("sweep", "builtin", "--recipe", "rtn", "--layers", "*.99.*").status == 1
    (run,) = json.loads(command("jobs", "--json").out)["runs"]
    assert run["state"] == "failed"
    said = command("jobs").out
    assert f"{run['id']} failed: 0 layers match '*.99.*'" in said
    assert f"`workbench jobs resume {run['id']}` goes on" in said
    assert command("jobs", "cancel", run["id"]).err == f"error: {run['id']} is failed; only a running one can be cancelled.\n"
    assert command("jobs", "cancel", "zz").err == "error: no run has an id that begins with 'zz'; `workbench jobs` lists them.\n"


def start(*arguments: str) -> "subprocess.Popen[bytes]":
    folder = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": folder}
    return subprocess.Popen([sys.executable, "-m", "workbench", *arguments], env=environment, stderr=subprocess.DEVNULL)


def wait_for_run(command: Callable[..., Said], process: "subprocess.Popen[bytes]", fraction: float) -> dict[str, object]:
    """The only run, once so much of it is done; for as long as its process lives, however busy the machine is."""
    while process.poll() is None:
        runs = json.loads(command("jobs", "--json").out)["runs"]
        if runs and runs[0]["fraction"] >= fraction:
            return runs[0]
        time.sleep(0.2)
    raise AssertionError(f"the run ended with status {process.returncode} before {fraction} of it was done")


def test_a_killed_run_is_resumed_with_the_same_result(
    command: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(*FEW, "--out", str(tmp_path / "killed"))
    wait_for_run(command, process, 0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (run,) = json.loads(command("jobs", "--json").out)["runs"]
    assert (run["state"], (tmp_path / "killed").exists()) == ("dead", False)
    resumed = command("jobs", "resume", run["id"])
    assert resumed.status == 0, resumed.err
    (run,) = json.loads(command("jobs", "--json").out)["runs"]
    assert (run["state"], run["process"]) == ("finished", os.getpid())
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "other"))
    assert command(*FEW, "--out", tmp_path / "whole").status == 0
    assert (tmp_path / "killed/packed.safetensors").read_bytes() == (tmp_path / "whole/packed.safetensors").read_bytes()


def test_a_run_is_cancelled_from_another_process(command: Callable[..., Said], tmp_path: Path) -> None:
    process = start(*QUANTIZE, "--out", str(tmp_path / "cancelled"))  # all layers: it must not end before it is cancelled
    run = wait_for_run(command, process, 0.1)
    said = command("jobs", "cancel", run["id"])
    assert process.wait(600) == 1
    assert said.out.startswith(f"{run['id']} is cancelled; ")
    assert not (tmp_path / "cancelled").exists()


def test_a_job_of_a_page_is_listed_and_goes_on_only_there(command: Callable[..., Said]) -> None:
    recorder = start_run(PAGE_ARGUMENTS, "building the stops")
    assert "workbench explore (building the stops)" in " ".join(command("jobs").out.split())
    recorder.end(RunState.CANCELLED)
    assert "jobs resume" not in command("jobs").out
    said = command("jobs", "resume", recorder.record.id)
    assert (said.status, said.err.strip()) == (
        1, f"error: {recorder.record.id} ran on a page of the explorer, where Resume goes on with it; no command can."
    )  # fmt: skip
