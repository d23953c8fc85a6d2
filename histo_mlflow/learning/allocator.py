"""How a process asks for the memory of large tensors; set by command lines, before torch is imported. Linux with glibc.

glibc's `malloc` can't use the gap that a freed aligned block leaves for another of the same size (before its version 2.38), so
a training that frees and asks for the same tensors in every step spreads over twice the memory that it needs. Large tensors are
therefore mapped one by one and handed back when they are freed, in pages of 2 MB, for clearing 4 kB pages again and again takes
longer than the work that is done with them.
"""

import ctypes
import os
import sys

_M_MMAP_THRESHOLD = -3  # from malloc.h
_LARGE_BYTES = 2**22


def map_large_tensors() -> None:
    """Map tensors of 4 MiB and more one by one, in large pages; what the environment says goes first."""
    if not sys.platform.startswith("linux"):
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch at its first allocation
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        set_option(_M_MMAP_THRESHOLD, _LARGE_BYTES)
