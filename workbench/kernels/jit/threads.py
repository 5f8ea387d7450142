"""The number of threads of compiled loops, and a lock that lets only one loop run at a time."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numba
import torch

from workbench.errors import KernelError
from workbench.kernels.jit import fork_guard

WORTH_THREADS = 1 << 20  # weights from which on threads pay: a busy core holds all of them up

_running = threading.Lock()  # numba's simplest thread pool aborts the process when two threads enter it


def _renew_lock() -> None:
    global _running  # noqa: PLW0603 - the thread that held it does not exist in the child
    _running = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def needs_threads(weights: int) -> bool:
    """Whether a loop over so many weights should run in parallel here."""
    return weights >= WORTH_THREADS and torch.get_num_threads() > 1 and not fork_guard.has_lost_threads()


@contextmanager
def use_threads() -> Iterator[None]:
    """Run one compiled parallel loop with as many threads as torch is set to use, at most as many as numba has started."""
    if fork_guard.has_lost_threads():
        raise KernelError("compiled parallel loops cannot run in a forked process; start it with the method 'spawn'.")
    fork_guard.start()
    with _running:
        asked_threads, before = torch.get_num_threads(), numba.get_num_threads()
        usable = min(asked_threads, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        if usable != before:  # setting it takes as long as ten thousand weights
            numba.set_num_threads(usable)
        torch.set_num_threads(asked_threads)  # starting numba's OpenMP pool sets the number that torch reads
        try:
            yield
        finally:
            if usable != before:
                numba.set_num_threads(before)
