"""Whether a process of this machine still runs; knows nothing of what it does."""

import os
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Return whether process `pid` exists and is more than a zombie."""
    try:
        # A zombie is dead, which kill(pid, 0) doesn't know.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
