"""The folder of everything that can be computed again: results in the store, and the records of long runs."""

import os
from pathlib import Path

import platformdirs


def find_cache_folder() -> Path:
    """The folder that the environment variable WORKBENCH_CACHE names, else the user's cache folder."""
    return Path(os.environ.get("WORKBENCH_CACHE") or platformdirs.user_cache_path("quantization-workbench"))
