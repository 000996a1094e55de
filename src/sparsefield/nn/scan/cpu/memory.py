"""Memory for large results."""

import ctypes
import mmap

from torch import Tensor

# The C library returns blocks above 32 MiB to the system at once, and the end of its heap whenever
# much of it is free: every call then touches fresh pages, and 4 KiB at a time that takes longer
# than the scan. Below this, blocks are used again.
LARGE = 8 * 2**20  # bytes
PAGE = mmap.PAGESIZE


def on_huge_pages(x: Tensor) -> Tensor:
    """Ask the system for huge pages under a new, large tensor; return the tensor."""
    if x.nbytes > LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
        start = -(-x.data_ptr() // PAGE) * PAGE
        length = x.data_ptr() + x.nbytes - start
        # advice only: whatever the answer, the memory works
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)
    return x
