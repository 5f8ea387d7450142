"""A process of its own says its steps, its errors and its end, and never outlives who watches it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from workbench import subprocess_job
from workbench.errors import WorkbenchError

COUNTS = """
import os, time
from pathlib import Path
import psutil
from workbench.errors import WorkbenchError

def scheduling():
    group = Path("/proc/self/autogroup")
    return {
        "policy": os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None,
        "group": int(group.read_text().split()[-1]) if group.is_file() else None,
    }

def steps(given):
    print("not a step")
    for number in range(given["count"]):
        yield {"number": number, "pid": os.getpid(), "priority": psutil.Process().nice(), **scheduling()}
    if given.get("says"):
        raise {"mistake": WorkbenchError, "disk": OSError}[given["error"]](given["says"])
    if given.get("exits"):
        os._exit(given["exits"])
    time.sleep(given.get("waits", 0))
"""

WATCHES = """
import os, signal
from workbench import subprocess_job
for step in subprocess_job.run_module_steps("counts", {"count": 1, "waits": 600}):
    if step is not None:
        print(step["pid"], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "counts.py").write_text(COUNTS)
    monkeypatch.syspath_prepend(tmp_path)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pid: int, seconds: float = 20) -> bool:
    """Whether a process ends within some seconds."""
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def test_steps_come_in_order_and_what_is_printed_is_no_step() -> None:
    found = [step for step in subprocess_job.run_module_steps("counts", {"count": 3}) if step is not None]
    numbers = [step["number"] for step in found]
    assert sorted(set(numbers)) == [0, 1, 2]
    assert numbers == sorted(numbers)
    assert found[0]["pid"] != os.getpid()


@pytest.mark.parametrize(("background", "priority"), [("idle", subprocess_job.LAST), ("nice", subprocess_job.LOW)])
def test_others_come_first(background: str, priority: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_BACKGROUND", background)
    step = next(step for step in subprocess_job.run_module_steps("counts", {"count": 1}) if step is not None)
    assert step["priority"] == priority


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has an idle class")
@pytest.mark.parametrize(("background", "policy", "group"), [("idle", "SCHED_IDLE", 10), ("nice", "SCHED_OTHER", 0)])
def test_it_takes_only_what_others_leave(background: str, policy: str, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_BACKGROUND", background)
    run = subprocess_job.run_module_steps("counts", {"count": 1})
    step = next(step for step in run if step is not None)
    assert step["policy"] == getattr(os, policy)
    assert step["group"] in (group, None)


def test_while_nothing_is_new_the_last_step_is_said_again() -> None:
    run = subprocess_job.run_module_steps("counts", {"count": 1, "waits": 600})
    step = next(step for step in run if step is not None)
    assert next(run) == step
    run.close()


@pytest.mark.parametrize(
    ("error", "says"), [("mistake", "group size 7 does not divide 12 columns"), ("disk", "no space left on device")]
)
def test_its_mistakes_and_full_disks_are_sentences(error: str, says: str) -> None:
    with pytest.raises(WorkbenchError, match=f"^{says}$"):
        list(subprocess_job.run_module_steps("counts", {"count": 1, "error": error, "says": says}))


def test_an_early_end_is_said() -> None:
    with pytest.raises(WorkbenchError, match=r"counts has ended early \(exit code 3\); its finished results are kept"):
        list(subprocess_job.run_module_steps("counts", {"count": 2, "exits": 3}))


def test_who_stops_watching_ends_it() -> None:
    run = subprocess_job.run_module_steps("counts", {"count": 1, "waits": 600})
    pid = next(step for step in run if step is not None)["pid"]
    assert alive(pid)
    assert subprocess_job.measure_memory() > 1e6
    run.close()
    assert not alive(pid)
    assert subprocess_job.measure_memory() == 0


def test_it_ends_with_who_watches() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", WATCHES], env=environment, stdout=subprocess.PIPE, text=True) as watches:
        assert watches.stdout is not None
        pid = int(watches.stdout.readline())
        assert watches.wait() == -signal.SIGKILL
    assert gone(pid)
