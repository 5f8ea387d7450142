"""Checks before anything is written: that every layer is held exactly, where that is asked for, and that the disk has room."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from workbench.errors import ArtifactError, OutputError
from workbench.exchange.writing.outcome import Outcome, group_losses
from workbench.exchange.writing.source import Source


def check_exact(source: Source, outcomes: Sequence[Outcome]) -> None:
    """ArtifactError where a quantized layer is not held exactly."""
    quantized = [outcome for outcome in outcomes if any(map(source.find_layer, source.parts(outcome.name)))]
    if losses := group_losses(quantized):
        loss, names = next(iter(losses.items()))
        raise ArtifactError(
            f"{sum(map(len, losses.values()))} of {len(quantized)} quantized layers cannot be held exactly: {len(names)} "
            f"would be {loss}, first {names[0]}; export without strict, or quantize with a recipe that the format holds."
        )


def check_disk(target: Path, size: int, measure: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free) -> None:
    """OutputError where the disk has no room for so many bytes."""
    folder = next(parent for parent in target.parents if parent.is_dir())
    if size > (free := measure(folder)):
        raise OutputError(
            f"{target} takes {size:,} bytes, and {folder} has {free:,} free; free some, or give a path on a larger disk."
        )
