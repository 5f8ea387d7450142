"""Large tensors in pages of 2 MiB.

A new matrix of 46 MB is 11,000 pages of 4 KiB, and handing them out takes the system several times as long as one thread takes to
fill them. NumPy asks for huge pages by itself; torch does if this variable is set before its first tensor.
"""

import os
from pathlib import Path

TORCH_SETTING = "THP_MEM_ALLOC_ENABLE"
SUPPORT = Path("/sys/kernel/mm/transparent_hugepage")  # Linux built without huge pages has no such folder, and torch would warn


def use_huge_pages() -> None:
    """Let torch ask for huge pages in this process and in those that it starts, unless the environment decides it."""
    if SUPPORT.exists():
        os.environ.setdefault(TORCH_SETTING, "1")
