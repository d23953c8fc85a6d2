"""How far work has come: a bar in a terminal, in a log a line now and then; how long something takes, in words."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from tqdm import tqdm

T = TypeVar("T")

LINE_SECONDS = 30.0
"""So often a log that is no terminal is told how far the work has come."""
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class Bar(tqdm, Generic[T]):  # type: ignore[type-arg]  # only its stub knows that tqdm is generic
    """tqdm's bar, which leaves nothing behind; where standard error is no terminal, a line every `LINE_SECONDS` instead.

    A bar with ``disable=True`` says nothing anywhere.
    """

    def __init__(self, iterable: Iterable[T] | None = None, **named: Any) -> None:
        self._speaks_in_lines, self._said_at = not sys.stderr.isatty(), time.monotonic()
        if self._speaks_in_lines:
            # A step looks at the clock each time: what comes next may take longer than all before.
            named |= {"mininterval": LINE_SECONDS, "miniters": 1, "delay": LINE_SECONDS}
        super().__init__(iterable, **{"leave": False, "file": sys.stderr, **named})

    def __iter__(self) -> Iterator[T]:
        return super().__iter__()

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Show how far it has come; tqdm calls this when it is time to."""
        if not self._speaks_in_lines:
            return super().display(msg, pos)
        # It calls this whenever something else was printed too, and with an empty text to clear the bar.
        if msg is None and self.n > 0 and time.monotonic() >= self._said_at + LINE_SECONDS:
            self._said_at = time.monotonic()
            print(self.describe(), file=sys.stderr, flush=True)
        return False

    def clear(self, nolock: bool = False) -> None:
        """Make room for what else is printed; a log needs none."""
        if not self._speaks_in_lines:
            super().clear(nolock)

    def describe(self) -> str:
        """Return how far it has come, in a line."""
        facts = self.format_dict
        done, total, rate = facts["n"], facts["total"], facts["rate"]
        spell = tqdm.format_sizeof if facts["unit_scale"] else str
        unit = facts["unit"] if facts["unit_scale"] else f" {'step' if facts['unit'] == 'it' else facts['unit']}s"
        name = f"{self.desc.rstrip(': ')}: " if self.desc else ""
        said = f"{name}{spell(done)}{f' of {spell(total)}' if total else ''}{unit} in {in_time(facts['elapsed'])}"
        if not total:
            return said
        rate = rate or (done - facts["initial"]) / facts["elapsed"]
        return f"{said}, {100 * done / total:.0f} %, about {in_time((total - done) / rate)} left"


def in_time(seconds: float) -> str:
    """Return how long that is, in words: ``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    whole = round(seconds)
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < 2 * _HOUR:
        return f"{round(whole / _MINUTE)} min"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
