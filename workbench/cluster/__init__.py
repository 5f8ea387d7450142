"""Independent tasks on many processes and machines: connect, run tasks, and what the tasks read.

    connection    a local cluster of processes, or a running one by its address, through dask.distributed
    task_map      many tasks on it (or one after the other here), whose results lie in the store
    task_inputs   models, texts and statistics as small descriptions, which the tasks read through the store
    calibration   statistics of a text, its parts read by many workers

Without the extra `distributed` everything runs here, one task after the other, with the same results.
"""

from workbench.cluster.connection import Cluster, open_cluster
from workbench.cluster.task_map import Task, map_tasks_steps

__all__ = ["Cluster", "Task", "map_tasks_steps", "open_cluster"]
