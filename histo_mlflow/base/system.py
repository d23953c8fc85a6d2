"""What Windows does otherwise than Linux and macOS: users, locks of folders, signals, processes; all such branches are here.

Windows has no lock that a folder keeps until its process ends, and no owner as a number. There nothing is swept, what is in use
is kept by the system itself, which removes no open file, and a user's own folders are taken as private.
"""

import os
import signal
import sys
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    HAS_FOLDER_LOCKS = False
else:
    HAS_FOLDER_LOCKS = True


def user_id() -> int:
    """Return the number of the user; 0 where users have none."""
    return os.getuid() if hasattr(os, "getuid") else 0


def is_private(stat: os.stat_result) -> bool:
    """Return whether a file or folder is this user's, and nobody else may write it; where that can't be told it is."""
    return not hasattr(os, "geteuid") or (stat.st_uid == os.geteuid() and not stat.st_mode & 0o022)


def lock_folder(folder: Path, *, is_shared: bool = False) -> int | None:
    """Return a descriptor whose folder is locked until it is closed or the process ends; None where there are no such locks.

    Raises:
        BlockingIOError: Another process has locked it; a shared lock waits for that instead.
        OSError: There is no such folder, or none may be locked there.
    """
    if not HAS_FOLDER_LOCKS:
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def bring_to_disk(path: Path) -> None:
    """Wait until a file or the names in a folder are on the disk: a rename may get there before what it names."""
    if not HAS_FOLDER_LOCKS and path.is_dir():  # can't be opened there
        return
    number = os.open(path, os.O_RDONLY if HAS_FOLDER_LOCKS else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def is_running(pid: int) -> bool:
    """Return whether there is a process of this number here; another user's may not be asked, and runs."""
    if sys.platform == "win32":  # there os.kill(pid, 0) is Ctrl-C
        import psutil

        return bool(psutil.pid_exists(pid))
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def signal_self(number: int) -> None:
    """Send this process a signal, which its main thread handles."""
    if sys.platform == "win32":  # there os.kill ends the process at once, whatever the number
        signal.raise_signal(number)
    else:
        os.kill(os.getpid(), number)
