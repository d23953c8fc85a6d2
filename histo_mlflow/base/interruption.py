"""Ctrl-C, SIGTERM and a dead parent, turned into one exception at a moment when it can do no harm."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from histo_mlflow.base.liveness import Process
from histo_mlflow.base.system import signal_self
from histo_mlflow.errors import Interrupted

LAUNCHER_VARIABLE = "HISTO_LAUNCHER_PID"
"""Environment variable with the process that has started the job of several processes that this one belongs to."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REDELIVERY_SECONDS = 1.0
_PARENT_POLL_SECONDS = 1.0
_SHIELD_SECONDS = 1.5  # past between the first and the second redelivery


@dataclass
class _State:
    """What is known of the present interruption: the signal's name and time, how many shields are up, who has reacted."""

    pending: str | None = None
    since: float = 0.0
    shields: int = 0
    is_acknowledged: bool = False


_state = _State()


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the block on SIGINT or SIGTERM; once it is acknowledged, further signals are ignored."""
    global _state
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return
    _state = _State()
    previous = {number: signal.signal(number, _on_signal) for number in _SIGNALS}
    try:
        yield
    finally:
        acknowledge()
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Hold an interruption back until the block is done, so that a run is never created without being noted, or half ended.

    No longer than about two seconds: a server that does not answer must not keep the user waiting. What is then half done is no
    worse than after SIGKILL.
    """
    _state.shields += 1
    try:
        yield
    finally:
        _state.shields -= 1
    _raise_if_due()


def acknowledge() -> None:
    """Say that the interruption has arrived where runs are ended, which further signals must not disturb."""
    _state.is_acknowledged = True


def stop_with_parent(parent: int) -> None:
    """Send SIGTERM to this process when its parent is gone: `mlflow run` does not pass on the signal that ends it.

    In a job of several processes the parent is torchrun, and `mlflow run` is torchrun's.
    """
    launcher = Process.of(int(os.environ.get(LAUNCHER_VARIABLE, parent)))

    def watch() -> None:
        while os.getppid() == parent and not launcher.is_gone:
            time.sleep(_PARENT_POLL_SECONDS)
        signal_self(signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="watch-parent").start()


def _on_signal(number: int, _frame: FrameType | None) -> None:
    if _state.is_acknowledged:
        return
    if _state.pending is None:
        _state.pending, _state.since = signal.Signals(number).name, time.monotonic()
        threading.Thread(target=_redeliver, args=(number,), daemon=True, name="redeliver-signal").start()
    _raise_if_due()


def _redeliver(number: int) -> None:
    # Python drops an exception that is raised in a finaliser or a callback from C, wherever the signal happens to hit.
    state = _state
    while True:
        time.sleep(_REDELIVERY_SECONDS)
        if state.is_acknowledged:
            return
        signal_self(number)


def _raise_if_due() -> None:
    is_held_back = _state.shields > 0 and time.monotonic() < _state.since + _SHIELD_SECONDS
    if _state.pending is not None and not is_held_back and not _state.is_acknowledged:
        raise Interrupted(f"interrupted by {_state.pending}")
