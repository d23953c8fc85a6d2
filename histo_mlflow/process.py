"""The process of a command: its memory, what libraries may do, and which of several it is; set up before large imports."""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from malloc.h


def prepare() -> None:
    """Set memory up, draw without a screen, and let MLflow load no pickle unless the user's environment says otherwise."""
    keep_freed_memory()
    # A notebook hands its own backend on, which is often not installed here; what is drawn here becomes a file.
    os.environ["MPLBACKEND"] = "agg"
    # A pickle runs code when it is loaded; the models of this package hold none.
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor of its size; what the environment says goes first. Linux with glibc.

    A training step frees and asks for the same gigabytes as the one before. Memory that goes back to the system in between
    comes cleared, page by page, which takes longer than much of the work that is done with it (docs/performance.md).
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if set_option is not None and not {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys():
        set_option(_M_MMAP_MAX, 0)  # no tensor is mapped on its own, and unmapped when it is freed
        set_option(_M_TRIM_THRESHOLD, -1)  # never


def is_launched() -> bool:
    """Return whether torchrun has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first_process() -> bool:
    """Return whether this process is the one that speaks and keeps the run; known before the processes have met."""
    return os.environ.get("RANK", "0") == "0" or not is_launched()
