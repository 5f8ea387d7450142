"""Many independent tasks: on a cluster in any order, or here one after the other, with the same results in the same order.

A task is a small description under a key, the hash of everything that its result is made of. Whoever runs it looks in the store
first and puts the result there, so that nothing is computed twice: not after a lost worker, a lost cluster or a killed run, and
not by two people who share a store. A task runs on one thread wherever it runs, so that sums are rounded the same everywhere on
processors of one kind.
"""

import queue
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from workbench.cluster.connection import Cluster, describe_lost_cluster
from workbench.errors import ClusterError
from workbench.store import Store

if TYPE_CHECKING:
    from distributed import Future

HEARTBEAT_SECONDS = 0.2  # between steps where nothing is new, so that a job can be stopped


@dataclass(frozen=True)
class Task:
    """Arguments of a function as JSON values, the key of its result in the store, and what the list of the store says of it."""

    key: str
    arguments: Mapping[str, Any]
    kind: str
    what: str


# of a module, so that workers can import it; JSON values in, JSON values out
TaskFunction = Callable[[Mapping[str, Any], Store], dict[str, Any]]


@dataclass(frozen=True)
class TaskProgress:
    """`done` of `total` tasks are done, `stored` of them before this run; `newest` is what has just been done, if anything."""

    done: int
    total: int
    stored: int
    newest: Task | None = None

    @property
    def fraction(self) -> float:
        """How much of the whole is done, 0 to 1."""
        return self.done / max(self.total, 1)


def map_tasks_steps(
    function: TaskFunction, tasks: Sequence[Task], store: Store, cluster: Cluster | None = None
) -> Generator[TaskProgress, None, list[dict[str, Any]]]:
    """Run a function on every task whose result is not in the store yet; a generator that returns all results in their order.

    Args:
        function: A function of a module, called with a task's arguments and the store.
        tasks: What to do; tasks of one key are done once.
        store: Where results are found, and new ones are kept. Workers use the same folder.
        cluster: Where the tasks run; here, one after the other, when absent.

    Yields:
        A TaskProgress whenever a task is done, and a few times a second. Closing the generator takes back what has not begun.

    Returns:
        What the function returned for each task, in the order of `tasks`.

    Raises:
        ClusterError: Where the cluster goes away, or where a task ends its worker again and again.
    """
    entries = {task.key: store.get(task.key) for task in tasks}
    results = {key: dict(entry.facts) for key, entry in entries.items() if entry is not None}
    missing = {task.key: task for task in tasks if task.key not in results}
    stored, total = len(results), len(entries)
    yield TaskProgress(stored, total, stored)
    run = _run_here_steps(function, missing, store) if cluster is None else _run_there_steps(function, missing, store, cluster)
    for answer in run:
        if answer is None:
            yield TaskProgress(len(results), total, stored)
            continue
        task, result = answer
        results[task.key] = result
        yield TaskProgress(len(results), total, stored, task)
    return [results[task.key] for task in tasks]


Answer = tuple[Task, dict[str, Any]]


def _run_here_steps(function: TaskFunction, tasks: Mapping[str, Task], store: Store) -> Generator[Answer, None, None]:
    """One task after the other in this thread."""
    for task in tasks.values():
        threads = torch.get_num_threads()
        try:
            result = complete_task(function, task, str(store.folder), store.limit_bytes)
        finally:
            torch.set_num_threads(threads)
        yield task, result


def _run_there_steps(
    function: TaskFunction, tasks: Mapping[str, Task], store: Store, cluster: Cluster
) -> Generator[Answer | None, None, None]:
    """All tasks on the cluster, as they are done; None while nothing is new."""
    done: queue.Queue[Future] = queue.Queue()
    waiting: dict[str, Future] = {}
    name = f"{function.__module__}.{function.__name__}"
    by_name = {f"{name}-{key}": task for key, task in tasks.items()}
    try:
        for key, task in by_name.items():
            waiting[key] = cluster.submit(complete_task, function, task, str(store.folder.absolute()), store.limit_bytes, key=key)
            waiting[key].add_done_callback(done.put)
        while waiting:
            try:
                future = done.get(timeout=HEARTBEAT_SECONDS)
            except queue.Empty:
                cluster.check()
                yield None
                continue
            task = by_name[future.key]
            result = _read_result(future, task)
            del waiting[future.key]
            if not store.path(task.key).exists():  # the worker's folder of this name is on another disk
                store.put(task.key, {}, result, kind=task.kind, what=task.what)
            yield task, result
    finally:
        cluster.cancel(list(waiting.values()))


def _read_result(future: "Future", task: Task) -> dict[str, Any]:
    """What a task that has ended returned; the function's own error where it raised one."""
    from distributed import CancelledError, KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise ClusterError(
            f"{task.what}: every worker that began it has ended, the last one {error.last_worker.address}; it may need more "
            f"memory than a worker has: start fewer workers. Finished tasks are in the store."
        ) from error
    except (CancelledError, OSError, TimeoutError) as error:
        raise describe_lost_cluster() from error


def complete_task(function: TaskFunction, task: Task, folder: str, limit_bytes: int) -> dict[str, Any]:
    """The result of one task, from the store where another attempt has left it there; runs in a worker, on one thread."""
    torch.set_num_threads(1)
    store = Store(folder, limit_bytes=limit_bytes)
    if (entry := store.get(task.key)) is not None:
        return dict(entry.facts)
    result = function(task.arguments, store)
    store.put(task.key, {}, result, kind=task.kind, what=task.what)
    return result
