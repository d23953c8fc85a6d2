"""Folders for what is written on the way, gone when they are no longer needed, whatever ends the process."""

import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from histo_mlflow.base.system import lock_folder, user_id

# With the machine's name: where several share a folder, locks of one may not be seen by another.
_PREFIX = f"histo-scratch-{platform.node()}-"
_NAME = re.compile(rf"{re.escape(_PREFIX)}[a-z0-9_]{{8}}")  # as `tempfile` makes them: what a user has made is left alone
_YOUNG_SECONDS = 60.0


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder that is gone after the block, or when the next command needs one if this process is killed.

    It is locked as long as this process lives: a lock ends with its process, in every container and after every restart.
    """
    _sweep(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        descriptor = None
        with suppress(OSError):  # where there are no locks nothing is swept either
            descriptor = lock_folder(Path(folder))
        try:
            yield Path(folder)
        finally:
            if descriptor is not None:
                os.close(descriptor)


@cache
def _sweep(place: Path) -> None:
    """Remove what killed processes of this user have left; once in a process."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another command sweeps too
            if _NAME.fullmatch(folder.name) and not folder.is_symlink() and _is_left(folder):
                shutil.rmtree(folder)


def _is_left(folder: Path) -> bool:
    found = folder.stat()
    if found.st_uid != user_id() or time.time() - found.st_mtime < _YOUNG_SECONDS:  # young: perhaps not locked yet
        return False
    try:
        descriptor = lock_folder(folder)
    except OSError:
        return False
    if descriptor is None:
        return False
    os.close(descriptor)
    return True
