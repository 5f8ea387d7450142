"""Tasks here and on a cluster: the same results in their order, from the store where they are there, and none of them twice."""

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cluster.conftest import start_threads
from tests.unit.cluster.counted_tasks import count_starts, fail, square
from workbench.cluster import Cluster, Task, map_tasks_steps, open_cluster
from workbench.cluster import connection as connections
from workbench.errors import ClusterError, RecipeError
from workbench.jobs import run_steps
from workbench.store import Store, compute_key


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "log").mkdir()
    return Store(tmp_path / "store")


def describe(store: Store, count: int, **arguments: Any) -> list[Task]:
    log = str(store.folder.parent / "log")
    return [
        Task(compute_key("square", n), {"number": n, "log": log, **arguments}, "square", f"the square of {n}")
        for n in range(count)
    ]


def test_results_are_in_order_and_are_found_again(store: Store) -> None:
    tasks = describe(store, 5)
    steps: list[Any] = []
    first = run_steps(map_tasks_steps(square, [tasks[3], tasks[1]], store), steps.append)
    assert [result["square"] for result in first] == [9, 1]
    assert [step.fraction for step in steps] == [0, 0.5, 1]
    steps.clear()
    results = run_steps(map_tasks_steps(square, [*tasks, tasks[0]], store), steps.append)
    assert [result["square"] for result in results] == [0, 1, 4, 9, 16, 0]
    assert (steps[0].done, steps[0].total, steps[0].stored) == (2, 5, 2)
    assert set(count_starts(store.folder.parent / "log").values()) == {1}


def test_a_cluster_gives_the_same(store: Store, cluster: Cluster, tmp_path: Path) -> None:
    here = run_steps(map_tasks_steps(square, describe(store, 20), store))
    (tmp_path / "other/log").mkdir(parents=True)
    other = Store(tmp_path / "other/store")
    there = run_steps(map_tasks_steps(square, describe(other, 20), other, cluster))
    assert there == here
    assert count_starts(tmp_path / "other/log") == {str(n): 1 for n in range(20)}
    assert repr(cluster) == f"<Cluster {cluster.address}: 2 workers>"


def test_a_mistake_is_the_function_s_own(store: Store, cluster: Cluster) -> None:
    for where in (None, cluster):
        with pytest.raises(RecipeError, match="0 cannot be squared; give another number"):
            run_steps(map_tasks_steps(fail, describe(store, 2), store, where))


def test_what_has_not_begun_is_taken_back(store: Store, cluster: Cluster) -> None:
    steps = map_tasks_steps(square, describe(store, 40, seconds=0.1), store, cluster)
    while next(steps).done < 2:
        pass
    steps.close()
    assert len(count_starts(store.folder.parent / "log")) < 30


def test_a_cluster_that_goes_away_loses_nothing(store: Store) -> None:
    tasks, log = describe(store, 40, seconds=0.05), store.folder.parent / "log"
    local = start_threads(1)
    with open_cluster(local.scheduler_address) as cluster:
        steps = map_tasks_steps(square, tasks, store, cluster)
        while next(steps).done < 5:
            pass
        local.close()
        with pytest.raises(ClusterError, match=r"the cluster went away.*run the same command, which goes on from there"):
            run_steps(steps)
    begun = count_starts(log)
    stored = sum(store.get(task.key) is not None for task in tasks)
    assert 5 <= stored < 40
    results = run_steps(map_tasks_steps(square, tasks, store))
    assert [result["square"] for result in results] == [n**2 for n in range(40)]
    again = count_starts(log) - begun
    assert sum(again.values()) == 40 - stored


def test_workers_with_several_threads_are_refused() -> None:
    with start_threads(1, threads=2) as local, pytest.raises(ClusterError, match=r"runs 2 threads.*--nworkers 2 --nthreads 1"):
        open_cluster(local.scheduler_address).__enter__()


def describe_by_thread() -> str:
    """One version here, where the test runs, and another one in a worker."""
    return f"workbench {9 if threading.current_thread() is threading.main_thread() else '0.0.1'}"


def test_workers_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "describe_worker", describe_by_thread)
    with start_threads(1) as local, pytest.raises(ClusterError, match=r"has workbench 0\.0\.1, and here is workbench 9"):
        open_cluster(local.scheduler_address).__enter__()


def test_an_address_where_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(
        "distributed", reason="dask.distributed is not installed; it comes with the extras 'test' and 'distributed'"
    )
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 0.5)
    for address in ("tcp://127.0.0.1:1", "nonsense://x", "tcp://127.0.0.1:x"):
        with pytest.raises(ClusterError, match=f"no cluster answers at '{address}'.*or --workers N"):
            open_cluster(address).__enter__()


def test_a_cluster_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECT_SECONDS", 0.5)
    with (
        start_threads(0) as local,
        pytest.raises(ClusterError, match="no worker after 0.5 seconds; start some"),
    ):
        open_cluster(local.scheduler_address).__enter__()


def test_dask_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"pip install 'quantization-workbench\[distributed\]'"):
        open_cluster(workers=2).__enter__()


def test_workers_and_address_exclude_each_other() -> None:
    with pytest.raises(ClusterError, match="exclude each other"):
        open_cluster("tcp://127.0.0.1:1", workers=2).__enter__()
    with pytest.raises(ClusterError, match="0 workers; use 1 or more"):
        open_cluster(workers=0).__enter__()
