"""The stops of the squeeze slider, built in a subprocess; see `subprocess_job`."""

from collections.abc import Iterator
from typing import Any

import torch

from workbench import subprocess_job
from workbench.analysis.decisions.squeeze import Squeeze
from workbench.analysis.decisions.stops import Stop
from workbench.models import open_model
from workbench.models.text import Text
from workbench.store import Store


def steps(options: subprocess_job.Given) -> Iterator[dict[str, Any]]:
    """Each step of the building, with the number of its stop; `options` is what `Squeeze.described` gives."""
    torch.set_num_threads(options["threads"])
    stops = [Stop(**stop) for stop in options["stops"]]
    calibration, evaluation = (
        Text(name, tuple(documents)) for name, documents in (options["calibration"], options["evaluation"])
    )
    squeeze = Squeeze(
        open_model(options["model"]),
        Store(options["store"], limit_bytes=options["limit_bytes"]),
        stops=stops,
        calibration=calibration,
        evaluation=evaluation,
        tokens=options["tokens"],
        seed=options["seed"],
        threads=max(1, options["threads"] // 2),  # the other cores are for who works in the foreground
    )
    for step in squeeze.steps():
        yield {"stop": stops.index(step.stop), "doing": step.doing, "fraction": step.fraction}
