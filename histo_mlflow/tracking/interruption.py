"""Ctrl-C, SIGTERM and a dead parent, turned into one exception at a moment when it can do no harm."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from histo_mlflow.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PARENT_POLL_SECONDS = 1.0

_shields = 0
_pending: str | None = None


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the block on the first SIGINT or SIGTERM; further ones are ignored while the block winds up."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return
    previous = {number: signal.signal(number, _on_signal) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Hold an interruption back until the block is done, so that a run is never created without being noted, or half ended."""
    global _shields
    _shields += 1
    try:
        yield
    finally:
        _shields -= 1
    if _shields == 0 and _pending is not None:
        _raise_pending()


def stop_with_parent() -> None:
    """Send SIGTERM to this process when its parent dies: `mlflow run` does not pass on the signal that ends it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="watch-parent").start()


def _on_signal(number: int, _frame: FrameType | None) -> None:
    global _pending
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    _pending = signal.Signals(number).name
    if _shields == 0:
        _raise_pending()


def _raise_pending() -> None:
    global _pending
    name, _pending = _pending, None
    raise Interrupted(f"interrupted by {name}")
