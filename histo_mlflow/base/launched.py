"""Whether torchrun has started this process, and which of several it is; known before the processes have met."""

import os


def is_launched() -> bool:
    """Return whether torchrun has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first_process() -> bool:
    """Return whether this process is the one that speaks and keeps the run."""
    return os.environ.get("RANK", "0") == "0" or not is_launched()
