"""Deferred interrupts: Ctrl-C and a notebook's stop button wait for imports, because an interrupted import breaks later ones."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def defer_interrupts() -> Iterator[None]:
    """Let an interrupt wait until the block is done; it is raised then.

    Only the main thread is interrupted, so that anywhere else there is nothing to do; nor where a program handles SIGINT itself.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    waiting: list[tuple[int, FrameType | None]] = []
    before: Any = signal.signal(signal.SIGINT, lambda number, frame: waiting.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if waiting:
            before(*waiting[0])
