"""An interrupt waits for what must not be left half done; the first job of a fresh kernel can be interrupted and run again."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from workbench.interrupts import defer_interrupts


@pytest.fixture(autouse=True)
def _listening() -> Iterator[None]:
    """Interrupts as a program in a terminal takes them; one that was started in the background ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_until_the_block_is_done() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), defer_interrupts():  # noqa: PT012  both statements belong to the block
        signal.raise_signal(signal.SIGINT)
        done.append("the rest")
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nothing_is_raised_without_an_interrupt() -> None:
    with defer_interrupts(), defer_interrupts():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_and_handlers_are_left_alone() -> None:
    seen: list[object] = []

    def look() -> None:
        with defer_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        look()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.default_int_handler, signal.SIG_IGN]


FIRST_JOB = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

def at_once(number, frame):
    raise KeyboardInterrupt

if sys.argv[2:] == ["planted"]:  # a handler of the program's own is never deferred
    signal.signal(signal.SIGINT, at_once)
import torch
from workbench.jobs import Job
from workbench.kernels.search import codeword_search

class Interrupting:
    count = 0
    def find_spec(self, name, path=None, target=None):
        Interrupting.count += name.split(".")[0] == "numba"
        if Interrupting.count == int(sys.argv[1]):
            Interrupting.count += 1
            os.kill(os.getpid(), signal.SIGINT)

def steps():
    yield
    import workbench.kernels.search.parity_search
    codeword_search.find_nearest_by_hamming(torch.arange(4), torch.arange(4), 8)
    from workbench.kernels.matmul.numba import backend, preparation
    return "done"

codeword_search.explain = lambda *_: ("numba", "")
sys.meta_path.insert(0, Interrupting())
try:
    Job(steps).run_here()
    sys.exit("was not interrupted")
except KeyboardInterrupt:
    print(Job(steps).run_here().result())
"""


def interrupt(*words: str) -> subprocess.CompletedProcess[str]:
    """Interrupt the first job of a new process while it imports numba, and run it again."""
    return subprocess.run([sys.executable, "-c", FIRST_JOB, *words], capture_output=True, text=True, check=False)


@pytest.mark.skipif(os.name != "posix", reason="this system interrupts processes in another way")
def test_the_first_job_of_a_kernel_can_be_interrupted() -> None:
    said = interrupt("100")
    assert said.stdout == "done\n", said.stderr


@pytest.mark.complete
@pytest.mark.parametrize("number", [1, 20, 40, 200])
def test_at_any_module(number: int) -> None:
    said = interrupt(str(number))
    assert said.stdout == "done\n", said.stderr


@pytest.mark.complete
def test_without_waiting_a_half_imported_library_stays_broken() -> None:
    said = interrupt("100", "planted")
    assert said.returncode == 1
    assert "has no attribute" in said.stderr
