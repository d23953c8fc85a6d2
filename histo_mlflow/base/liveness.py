"""Whether a process still runs, as far as this machine can tell; knows nothing of what it does."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from histo_mlflow.base.system import is_running

SIGN_SECONDS = 60.0
_STATE, _STARTED = 0, 19  # places in /proc/PID/stat, counted from its third field


@dataclass(frozen=True)
class Process:
    """What names a process among all machines and times: a number alone means nothing elsewhere, and is given again.

    Attributes:
        host: Name of the machine or container.
        boot: Id of the start of the machine; empty where the system tells none.
        namespace: PID namespace: each container has numbers of its own.
        pid: Number within the namespace.
        started: Clock ticks from the machine's start to the process's; empty where the system doesn't tell.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "Process":
        """Return the process that has this number here and now."""
        facts = _facts_of(pid)
        return cls(socket.gethostname(), _boot(), _namespace(), pid, facts[_STARTED] if facts else "")

    @property
    def is_local(self) -> bool:
        """Whether its number can be looked up here."""
        known = bool(self.boot and self.namespace) or self.host == socket.gethostname()
        return known and (self.boot, self.namespace) == (_boot(), _namespace())

    @property
    def is_gone(self) -> bool:
        """Whether it has surely ended; False where this machine can't know."""
        return self.is_local and not self._runs()

    def _runs(self) -> bool:
        if facts := _facts_of(self.pid):
            # A zombie is dead, which `is_running` doesn't know.
            return facts[_STATE] != "Z" and self.started in {"", facts[_STARTED]}
        return is_running(self.pid)


@contextmanager
def giving_signs(give: Callable[[], object], *, every_seconds: float = SIGN_SECONDS) -> Iterator[None]:
    """Call `give` from a thread time and again while the block goes on; what it raises disturbs nobody."""
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.wait(every_seconds):
            with suppress(Exception):
                give()

    threading.Thread(target=go_on, daemon=True, name="sign-of-life").start()
    try:
        yield
    finally:
        is_over.set()  # not joined: a server that is away may hold the thread for minutes


def _facts_of(pid: int) -> list[str]:
    """Return what Linux tells of a process; nothing where there is no /proc, or it shows another namespace's numbers."""
    with suppress(OSError):
        if Path("/proc/self").readlink().name == str(os.getpid()):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _namespace() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""
