"""How many threads compiled loops use, and that only one of them runs at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numba
import torch

_running = threading.Lock()  # numba's simplest thread pool aborts the process when two threads enter it


@contextmanager
def threads() -> Iterator[None]:
    """Run one compiled parallel loop with as many threads as torch is set to use, at most as many as numba has started."""
    with _running:
        wanted, before = torch.get_num_threads(), numba.get_num_threads()
        numba.set_num_threads(min(wanted, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        torch.set_num_threads(wanted)  # starting numba's OpenMP pool sets the number that torch reads
        try:
            yield
        finally:
            numba.set_num_threads(before)
