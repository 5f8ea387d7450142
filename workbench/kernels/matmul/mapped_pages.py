"""Memory of stored tensors that were prepared to run, and are not read again unless somebody asks for the matrix."""

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable, Iterable

from torch import Tensor

PAGE_OUT = 21  # MADV_PAGEOUT of Linux 5.4 and later, which Python does not name


@functools.cache
def _find_advice() -> Callable[[int, int], object] | None:
    """Hand pages back, given their address and bytes; None where the system does not know this."""
    if sys.platform != "linux":
        return None
    advise = ctypes.CDLL(None).madvise
    return lambda address, size: advise(ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_int(PAGE_OUT))


def release_pages(tensors: Iterable[Tensor]) -> None:
    """Let the system take the memory of tensors that lie in mapped files; what is read again comes from the file.

    Values never change by it: memory that is no file's, or that was written to, goes to swap or stays. Pages at both ends of a
    tensor are left, since others may share them.
    """
    advise = _find_advice()
    if advise is None:
        return
    for tensor in tensors:
        if tensor.device.type == "cpu":
            begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
            size = tensor.data_ptr() + tensor.nbytes - begin
            if size >= mmap.PAGESIZE:
                advise(begin, size // mmap.PAGESIZE * mmap.PAGESIZE)
