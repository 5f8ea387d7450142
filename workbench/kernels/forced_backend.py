"""The backend that WORKBENCH_KERNELS forces, for matmuls and searches."""

import os

VARIABLE = "WORKBENCH_KERNELS"


def read_forced_backend() -> str | None:
    """Its name, None where nothing is forced."""
    return os.environ.get(VARIABLE) or None


def choose_searcher(work: int, least: int, what: str, device: str) -> tuple[str, str]:
    """("numba" or "reference", one sentence why) for a search of `work` steps, of which `least` pay for loading compiled code."""
    if read_forced_backend() == "reference":
        return "reference", f"forced by {VARIABLE}"
    if device != "cpu":
        return "reference", f"tensors are on {device}; the compiled search runs on the CPU"
    if work < least:
        return "reference", f"{work} {what}; compiled code is faster from {least} on"
    return "numba", f"{work} {what}, compiled for this CPU"
