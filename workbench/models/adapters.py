"""Adapters beside a base model: only the base model is opened, with a warning."""

import warnings
from pathlib import Path

from workbench.errors import WorkbenchWarning
from workbench.models.folder_kinds import ADAPTER_CONFIG, ADAPTER_WEIGHTS, has_files, read_adapter_facts


def _list_adapter_files(folder: Path) -> list[str]:
    """Names of an adapter's files in a folder."""
    return [name for name in (ADAPTER_CONFIG, *ADAPTER_WEIGHTS) if has_files(folder, name)]


def warn_of_adapter(folder: Path) -> None:
    """Warn where an adapter lies beside the model: without it the model may be another one than its owner thinks."""
    if files := _list_adapter_files(folder):
        kind, _ = read_adapter_facts(folder)
        warnings.warn(
            f"{folder} holds {kind} ({files[-1]}) beside the base model; only the base model is opened, without the adapter: "
            f"merge it first (peft: merge_and_unload) if you want both.",
            WorkbenchWarning,
            stacklevel=3,
        )
