"""Functions that the workers of tests run: each leaves a file for every time that it was begun."""

import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.analysis.decisions.recipe_sweep import quantize_task_layer
from workbench.store import Store


def record_start(arguments: Mapping[str, Any], name: str) -> None:
    """Note that a task was begun, by which process."""
    (Path(arguments["log"]) / f"{name}@{os.getpid()}@{time.monotonic_ns()}").touch()


def count_starts(log: Path) -> Counter[str]:
    """How often each task was begun."""
    return Counter(path.name.partition("@")[0] for path in log.iterdir())


def quantize_counted(arguments: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """A task of a sweep; the one that is to lose its worker ends it the first time, halfway."""
    name = f"{arguments['layer']} {arguments['label']}"
    first = not any(path.name.startswith(f"{name}@") for path in Path(arguments["log"]).iterdir())
    record_start(arguments, name)
    result = quantize_task_layer(arguments, store)
    if arguments.get("kills") and first:
        os.kill(os.getpid(), signal.SIGKILL)
    return result


def square(arguments: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """A number's square, after a while where that is asked for."""
    record_start(arguments, str(arguments["number"]))
    time.sleep(arguments.get("seconds", 0))
    return {"square": arguments["number"] ** 2, "nothing": float("inf")}


def fail(arguments: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """A mistake of a user."""
    from workbench.errors import RecipeError

    raise RecipeError(f"{arguments['number']} cannot be squared; give another number.")
