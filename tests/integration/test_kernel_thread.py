"""A notebook's page is heard in the main thread of a real kernel, also where JupyterLab speaks to another one."""

from collections.abc import Iterator

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

PREPARE = """
import threading
from IPython import get_ipython
import workbench as wb

wb.notebook()
wb.notebook()
heard = []

def open_comm(comm, message):
    heard.append(("opened", threading.current_thread() is threading.main_thread()))
    comm.on_msg(lambda message: heard.append((message["content"]["data"], threading.current_thread() is threading.main_thread())))

get_ipython().kernel.comm_manager.register_target("page", open_comm)
"""


@pytest.fixture
def kernel() -> Iterator[BlockingKernelClient]:
    manager, client = start_new_kernel()
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def said(kernel: BlockingKernelClient, code: str) -> str:
    """What a cell shows."""
    reply = kernel.execute_interactive(code, user_expressions={"shown": "heard"}, timeout=60, output_hook=lambda _: None)
    assert reply["content"]["status"] == "ok", reply["content"]
    return reply["content"]["user_expressions"]["shown"]["data"]["text/plain"]


@pytest.mark.parametrize("opened_there", [False, True], ids=["opened-here", "opened-there"])
def test_what_comes_in_another_thread_is_handled_in_the_main_one_in_order(
    kernel: BlockingKernelClient, opened_there: bool
) -> None:
    said(kernel, PREPARE)
    asked = kernel.session.msg("create_subshell_request", {})
    kernel.control_channel.send(asked)
    other = kernel.control_channel.get_msg(timeout=60)["content"]["subshell_id"]

    def send(kind: str, *, there: bool = True, **content: object) -> None:
        message = kernel.session.msg(kind, {"comm_id": "it", **content})
        if there:
            message["header"]["subshell_id"] = other
        kernel.shell_channel.send(message)

    for number in range(3):
        send("comm_msg", data=number)
    # JupyterLab opens it in the main thread, which may be busy meanwhile
    send("comm_open", there=opened_there, target_name="page", data={})
    for _ in range(100):
        if (heard := said(kernel, "import time; time.sleep(0.05)")).count("(") == 4:
            break
    assert heard == "[('opened', True), (0, True), (1, True), (2, True)]"
