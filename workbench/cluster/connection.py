"""A cluster of worker processes: started on this machine, or reached by the address of its scheduler.

Dask moves tasks and small results between processes in its own protocol, which contains pickles. Attach only to a cluster of your
own: whoever can reach its scheduler can run code on its workers. For a network that others use, start it with certificates and
attach by `tls://HOST:PORT`; Dask's configuration (`distributed.comm.tls`) then says where they lie. Models, texts, statistics and
results do not travel this way: they are safetensors files in the store.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

import workbench
from workbench.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_SECONDS = 20  # to reach a scheduler, and to see its first worker
REPLACING_TIME = "1h"  # for a lost process to be there again; after Dask's 15 s one that starts slowly is ended at its work
SINGLE_THREADED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class Cluster:
    """Worker processes of one thread each; made by `open_cluster`."""

    def __init__(self, client: "Client") -> None:
        self.client = client

    def __repr__(self) -> str:
        return f"<Cluster {self.address}: {self.count_workers()} workers>"

    @property
    def address(self) -> str:
        """Where its scheduler listens."""
        return self.client.scheduler.address if self.client.scheduler is not None else "closed"

    def count_workers(self) -> int:
        """How many workers there are now."""
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    def submit(self, function: Callable[..., Any], *arguments: Any, key: str) -> "Future":
        """Let a worker call a function of a module; tasks of one key are one task."""
        return self.client.submit(function, *arguments, key=key)

    def check(self) -> None:
        """ClusterError where the scheduler cannot be reached any more."""
        if self.client.status != "running":
            raise describe_lost_cluster()

    def cancel(self, futures: "list[Future]") -> None:
        """Take back tasks that have not begun; one that is at work goes on to its end."""
        if self.client.status == "running" and futures:
            self.client.cancel(futures)


def describe_lost_cluster() -> ClusterError:
    """The error for a scheduler that has ended or cannot be reached any more."""
    return ClusterError(
        "the cluster went away: its scheduler cannot be reached any more. Finished tasks are in the store; start the cluster "
        "again and run the same command, which goes on from there."
    )


@contextmanager
def open_cluster(address: str | None = None, workers: int | None = None) -> Iterator[Cluster]:
    """Start a cluster of processes on this machine, or attach to a running one.

    In a script, call it below `if __name__ == "__main__":`, since new processes import the script.

    Args:
        address: Of a scheduler, such as "tcp://10.0.0.5:8786" or "tls://…"; a local cluster when absent.
        workers: Processes of the local cluster, each of one thread; as many as there are cores when absent.

    Yields:
        The cluster, which is closed at the end of the block; one that was attached to goes on running.

    Raises:
        ClusterError: Where Dask is not installed, where nothing answers at the address, or where its workers cannot be used.

    Example:
        >>> import workbench as wb
        >>> from workbench.cluster import open_cluster
        >>> try:
        ...     open_cluster("tcp://127.0.0.1:1", workers=2).__enter__()
        ... except wb.errors.ClusterError as error:
        ...     print(error)
        address and workers exclude each other: a cluster that is running has its own workers; give one of them.
    """
    if address is not None and workers is not None:
        raise ClusterError(
            "address and workers exclude each other: a cluster that is running has its own workers; give one of them."
        )
    if workers is not None and workers < 1:
        raise ClusterError(f"{workers} workers; use 1 or more.")
    require_dask()
    with _start_local_cluster(workers or os.cpu_count() or 1) if address is None else _attach_to_cluster(address) as client:
        _check_workers(client)
        yield Cluster(client)


def require_dask() -> None:
    """ClusterError where the extra is not installed."""
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise ClusterError(
            f"workers need dask.distributed, which cannot be imported ({error}); install it with "
            f"`pip install 'quantization-workbench[distributed]'`, or leave out --workers and --cluster."
        ) from error


@contextmanager
def _start_local_cluster(workers: int) -> "Iterator[Client]":
    """Processes on this machine, reachable from this machine only; they end with this one."""
    import dask
    from distributed import Client, LocalCluster

    alone = {f"distributed.nanny.pre-spawn-environ.{name}": 1 for name in SINGLE_THREADED}
    # a free port: with the usual one a second cluster on this machine warns, or with warnings as errors does not start
    no_dashboard = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
    options: dict[str, Any] = {**no_dashboard, "silence_logs": logging.CRITICAL, "memory_limit": 0}
    with (
        dask.config.set({**alone, "distributed.deploy.lost-worker-timeout": REPLACING_TIME}),
        LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", **options) as local,
        Client(local) as client,
    ):
        yield client


@contextmanager
def _attach_to_cluster(address: str) -> "Iterator[Client]":
    """A client of the scheduler at an address; certificates of a `tls://` one are those of Dask's configuration."""
    from distributed import Client

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it says of a lost scheduler is said here
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ClusterError(
            f"no cluster answers at {address!r} ({_shorten(error)}); give the address that `dask scheduler` prints, "
            f"such as tcp://10.0.0.5:8786, or --workers N for processes on this machine."
        ) from error
    with client:
        yield client


def _check_workers(client: "Client") -> None:
    """ClusterError unless there are workers, each with one thread and this version of the workbench and of torch."""
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError as error:
        raise ClusterError(
            f"the cluster has no worker after {CONNECT_SECONDS} seconds; start some with `dask worker ADDRESS --nthreads 1`."
        ) from error
    for name, facts in client.scheduler_info(n_workers=-1)["workers"].items():
        if facts["nthreads"] != 1:
            raise ClusterError(
                f"the worker {name} runs {facts['nthreads']} threads; a task needs a process of its own: start it with "
                f"`dask worker ADDRESS --nworkers {facts['nthreads']} --nthreads 1`."
            )
    try:
        versions = client.run(describe_worker)
    except Exception as error:
        raise ClusterError(
            f"the workers cannot run this workbench ({_shorten(error)}); install version {workbench.__version__} in their "
            f"environment."
        ) from error
    for name, version in versions.items():
        if version != describe_worker():
            raise ClusterError(f"the worker {name} has {version}, and here is {describe_worker()}; install the same everywhere.")


def describe_worker() -> str:
    """What decides the results of a worker: the versions of the workbench and of torch."""
    return f"workbench {workbench.__version__} with torch {torch.__version__}"


def _shorten(error: Exception) -> str:
    """The first line of an error, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
