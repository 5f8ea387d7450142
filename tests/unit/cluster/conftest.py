"""A cluster that starts at once."""

from collections.abc import Iterator
from typing import Any

import pytest

from workbench.cluster import Cluster, open_cluster


def start_threads(workers: int, threads: int = 1) -> Any:
    """A cluster whose workers are threads of this process."""
    distributed = pytest.importorskip(
        "distributed", reason="dask.distributed is not installed; it comes with the extras 'test' and 'distributed'"
    )
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=threads, processes=False, dashboard_address=None, protocol="tcp", host="127.0.0.1"
    )


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two workers."""
    with start_threads(2) as local, open_cluster(local.scheduler_address) as attached:
        yield attached
