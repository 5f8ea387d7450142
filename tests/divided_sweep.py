"""A sweep of 42 layers × 5 recipes on worker processes, run by hand: `python -m tests.divided_sweep`.

One of three workers is killed halfway, and the results have to be those of the serial run; then the same sweep is timed on one
and on two workers. `--patience 1` plants the fault that a replaced worker was once given up before it had started.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import workbench as wb
from tests.unit.cluster.counted_tasks import count_starts, quantize_counted
from workbench.analysis.decisions.recipe_sweep import describe_tasks, quantize_task_layer, tabulate_sweep
from workbench.cli.streams import write
from workbench.cluster import Task, connection, map_tasks_steps, open_cluster
from workbench.jobs import run_steps
from workbench.store import Store

RECIPES = {name: wb.recipe(name) for name in ("rtn:bits=8", "rtn:bits=4", "rtn:bits=3", "rtn:bits=2", "binary")}
KILLER = 100  # number of the task that ends its worker


def main() -> None:
    """Run all of it, and print what was seen."""
    options = argparse.ArgumentParser()
    options.add_argument("--patience", help="seconds that a lost worker has to come back, such as 1")
    options.add_argument("--untimed", action="store_true", help="leave out the sweeps on one and on two workers")
    chosen = options.parse_args()
    if chosen.patience:
        connection.REPLACING_TIME = f"{chosen.patience}s"
    with tempfile.TemporaryDirectory() as folder:
        tasks = describe_sweep(Store(Path(folder) / "tasks"))
        compare_with_serial_run(tasks, Path(folder))
        for workers in () if chosen.untimed else (1, 2):
            measure_sweep(tasks, Path(folder), workers)


def describe_sweep(store: Store) -> list[Task]:
    """A task for each layer of the built-in model and each recipe."""
    model = wb.open_model("builtin")
    return describe_tasks(model, model.layer_names, RECIPES, {0: None}, store)


def compare_with_serial_run(tasks: list[Task], folder: Path) -> None:
    """Kill one of three workers; say which tasks were begun more than once, and whether the table is that of one thread."""
    log = folder / "log"
    log.mkdir()
    counted = [
        dataclasses.replace(task, arguments={**task.arguments, "log": str(log), "kills": number == KILLER})
        for number, task in enumerate(tasks)
    ]
    with open_cluster(workers=3) as cluster:
        there = run_steps(map_tasks_steps(quantize_counted, counted, Store(folder / "there"), cluster))
        left = cluster.count_workers()
    here = run_steps(map_tasks_steps(quantize_task_layer, tasks, Store(folder / "here")))
    tables = [tabulate_sweep(tasks, results).drop(columns="seconds") for results in (there, here)]
    repeated = {name: count for name, count in count_starts(log).items() if count > 1}
    write(f"{len(tasks)} tasks, equal to the serial run: {tables[0].equals(tables[1])}; {left} workers at the end")
    write(f"begun more than once: {repeated}; killed at: {counted[KILLER].what}")


def measure_sweep(tasks: list[Task], folder: Path, workers: int) -> None:
    """Seconds of the sweep on so many workers that have started, and processor seconds of all of them."""
    with open_cluster(workers=workers) as cluster:
        cluster.client.run(_warm_up, tasks[0], str(folder / "warm"))
        before, begin = sum(cluster.client.run(time.process_time).values()), time.perf_counter()
        run_steps(map_tasks_steps(quantize_task_layer, tasks, Store(folder / f"timed-{workers}"), cluster))
        wall, spent = time.perf_counter() - begin, sum(cluster.client.run(time.process_time).values()) - before
    write(f"{workers} workers: {wall:.1f} seconds, {spent:.1f} processor seconds of workers")


def _warm_up(task: Task, folder: str) -> None:
    """Open the model, in each worker."""
    quantize_task_layer(task.arguments, Store(folder))


if __name__ == "__main__":
    main()
