"""Jobs in a subprocess: its watchers wait neither for the interpreter's lock nor for compilers.

The process is given a line of JSON and answers with one for each step of a module's function `steps`. It works where others leave
the processor to it, and ends with the process that started it.
"""

import importlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import psutil

from workbench.errors import WorkbenchError

HEARTBEAT_SECONDS = 0.2  # seconds between steps where nothing is new, so that a job can be stopped
# of all priorities, as the system counts them: the last, and one below others that still gets a share of a busy machine
LAST, LOW = getattr(psutil, "IDLE_PRIORITY_CLASS", 19), getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", 5)
VARIABLE = "WORKBENCH_BACKGROUND"
AUTOGROUP = Path("/proc/self/autogroup")
# of the session: a tenth of the weight of another one; with the last niceness, a job would never start on a busy machine
GROUP_NICENESS = 10
FAILED = "failed"  # a step with this key alone says why there are no more

Given = dict[str, Any]

_running: dict[int, psutil.Process] = {}  # by their numbers


def run_module_steps(module: str, options: Given) -> Generator[dict[str, Any] | None, None, None]:
    """What `steps(given)` of a module yields, as JSON values; while nothing is new, its last step again.

    Closing the generator ends the process. WorkbenchError with what the module says, or where its process has ended early.
    """
    path = os.pathsep.join(folder for folder in sys.path if folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench.subprocess_job", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C in a terminal is meant for who watches
    )
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=read, args=(process.stdout, lines), daemon=True)
    with process:
        _running[process.pid] = psutil.Process(process.pid)
        reader.start()
        try:
            with suppress(BrokenPipeError):  # it has ended already, which is heard below
                print(json.dumps(options), file=process.stdin, flush=True)
            yield from _read_steps(lines)
        except EOFError:
            message = f"the process of {module} has ended early (exit code {process.wait()}); its finished results are kept."
            raise WorkbenchError(message) from None
        finally:
            process.terminate()
            reader.join()
            _running.pop(process.pid)


def list_processes() -> list[psutil.Process]:
    """The processes that were started here and have not ended, the latest last."""
    return list(_running.values())


def measure_memory() -> int:
    """Bytes of memory that the processes started here have now."""
    total = 0
    for process in list_processes():
        with suppress(psutil.NoSuchProcess):
            total += int(process.memory_info().rss)
    return total


def read(stream: TextIO, lines: "queue.Queue[str]") -> None:
    """Pass lines on, and an empty one at the end."""
    for line in stream:
        lines.put(line)
    lines.put("")


def _read_steps(lines: "queue.Queue[str]") -> Generator[dict[str, Any] | None, None, None]:
    """Steps as they come, the last of which is empty; EOFError where none is."""
    step: dict[str, Any] | None = None
    while step != {}:
        try:
            line = lines.get(timeout=HEARTBEAT_SECONDS)
        except queue.Empty:
            yield step
            continue
        if not line:
            raise EOFError
        step = json.loads(line)
        if FAILED in step:
            raise WorkbenchError(step[FAILED])
        if step:
            yield step


def answer(module: str) -> None:
    """In the process itself: what a module's `steps` makes of what is given. What else is printed goes where errors do."""
    release_processor()  # before anything large is imported: threads begin as their process is then
    answers, sys.stdout = sys.stdout, sys.stderr
    options = json.loads(sys.stdin.readline())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        for step in importlib.import_module(module).steps(options):
            print(json.dumps(step), file=answers, flush=True)
        print("{}", file=answers, flush=True)
    except (WorkbenchError, OSError) as error:
        print(json.dumps({FAILED: str(error)}), file=answers, flush=True)


def release_processor() -> None:
    """Let this process run only where others leave a core idle, as far as the system has a way to say so.

    Linux: the idle class of the scheduler, which gives way as soon as another thread wants the core, and a tenth of the weight
    of the session's group, since niceness counts only among the processes of one session. macOS: background quality of service
    (Python 3.12 and later), which also moves it to efficient cores. Windows: the idle priority class. Elsewhere the last
    niceness. Where WORKBENCH_BACKGROUND is "nice" it is a low one instead: on a machine that is always busy it would never end.
    """
    if os.environ.get(VARIABLE) == "nice":
        psutil.Process().nice(LOW)
        return
    psutil.Process().nice(LAST)
    with suppress(OSError):  # not allowed in some containers, and the system has no such group or was built without
        if hasattr(os, "sched_setscheduler") and hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):
        if sys.platform == "linux":
            AUTOGROUP.write_text(str(GROUP_NICENESS))
    with suppress(OSError):
        if sys.platform == "darwin" and sys.version_info >= (3, 12):
            os.setpriority(os.PRIO_DARWIN_PROCESS, 0, os.PRIO_DARWIN_BG)


def _exit_with_parent() -> None:
    """Wait until nobody can write here any more."""
    os.read(sys.stdin.fileno(), 1)  # not by way of `stdin`, which is locked meanwhile and could not be closed at the end
    os._exit(1)


if __name__ == "__main__":
    answer(sys.argv[1])
