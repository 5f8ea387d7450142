"""Seeds: one range for all random generators, whichever library they belong to."""

from numbers import Integral
from typing import Any

from workbench.errors import WorkbenchError
from workbench.json_value import shorten_value

LARGEST_SEED = 2**32 - 1  # what numpy's and torch's generators both take, with room for the seeds that are counted on from one


def check_seed(seed: Any, error: type[WorkbenchError] = WorkbenchError) -> int:
    """The seed; `error` where it is no whole number or out of range."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) <= LARGEST_SEED:
        raise error(f"seed {shorten_value(seed)}; use a whole number from 0 to {LARGEST_SEED:,}.")
    return int(seed)
