"""Comm messages of a notebook page are handled on the thread that runs its cells, and in order.

JupyterLab has it heard in another thread where the kernel offers one (ipykernel 7, "subshells"), so that widgets answer while a
cell runs. Bokeh's documents are not made for two threads: messages to the page get mixed up, and what they said is lost to it for
good (jupyterlab/jupyterlab#19719). And what a page says first overtakes the opening of its line, which waits for the cell: nobody
hears it, and the page, which waits for an answer, says no more for five seconds.
"""

import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

NEEDED_WITH = {"ipykernel": "7"}  # the newest releases that were seen to need this

MESSAGES = ("comm_open", "comm_msg", "comm_close")
Message = tuple[Any, ...]  # the stream, who sent it, and what: header and content
POLL_SECONDS = 0.02  # seconds between looks whether a line has been opened
MAX_POLLS = 250  # at most


class InMainThread:
    """Has messages of a page handled in the main thread, whichever thread they came in, and not before its line is open."""

    def __init__(self, kernel: Any, handlers: Mapping[str, Callable[..., Any]]) -> None:
        self.kernel, self.handlers = kernel, handlers
        self._early: dict[str, list[Message]] = {}  # by line, in the order in which they came

    def __call__(self, *message: Any) -> None:
        """Handle a message now, or as soon as the main thread is free."""
        if threading.current_thread() is threading.main_thread():
            self._handle(message)
        else:
            self.kernel.io_loop.add_callback(self._in_order, message)

    def _handle(self, message: Message) -> None:
        self.handlers[message[-1]["header"]["msg_type"]](*message)

    def _in_order(self, message: Message) -> None:
        line = message[-1]["content"]["comm_id"]
        if message[-1]["header"]["msg_type"] == "comm_open":
            self._handle(message)
        elif line in self._early:
            self._early[line].append(message)
        elif self._is_open(line):
            self._handle(message)
        else:
            self._early[line] = [message]
            self._wait(line, MAX_POLLS)

    def _wait(self, line: str, looks: int) -> None:
        if looks and not self._is_open(line):
            self.kernel.io_loop.call_later(POLL_SECONDS, self._wait, line, looks - 1)
            return
        for message in self._early.pop(line):
            self._handle(message)

    def _is_open(self, line: str) -> bool:
        return line in self.kernel.comm_manager.comms


def find_kernel() -> Any:
    """The Jupyter kernel that this process is, or None."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None)


def hear_in_main_thread() -> None:
    """Have this kernel handle its pages' messages in the main thread; nothing to do outside of ipykernel."""
    current = find_kernel()
    handlers = getattr(current, "shell_handlers", {})
    own_handlers = {name: handlers[name] for name in MESSAGES if name in handlers}
    if not any(isinstance(handler, InMainThread) for handler in own_handlers.values()):
        handlers |= dict.fromkeys(own_handlers, InMainThread(current, own_handlers))
