"""A guard against forks: threads of compiled loops do not exist in a forked process.

OpenMP ends a process that enters a parallel loop after that. Such a process runs its loops on one thread.
"""

import os

_started = False
_cut_off = False


def start() -> None:
    """Note that compiled loops are about to start threads in this process."""
    global _started  # noqa: PLW0603 - a fact about the process
    _started = True


def has_lost_threads() -> bool:
    """Whether the threads of compiled loops were lost in a fork."""
    return _cut_off


def _mark_lost_threads() -> None:
    global _cut_off  # noqa: PLW0603
    _cut_off = _started


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_lost_threads)
