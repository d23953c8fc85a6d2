"""What a check says: how bad, how many, which tiles, what to do; knows nothing of how it was found."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.slides.doubts import Doubt

if TYPE_CHECKING:
    from histo_mlflow.auditing.subject import Subject

SERIOUS, DOUBTFUL, NOTE, CLEAR, UNASKED = "serious", "doubtful", "note", "clear", "unasked"
SEVERITIES = (SERIOUS, DOUBTFUL, NOTE, CLEAR, UNASKED)
"""Serious: figures from this set can't be believed as they are; doubtful: look at it; note: to be known; clear: not found;
unasked: not looked for, and why."""

Measures = Mapping[str, NDArray[Any]]
"""Arrays ``(n_tiles, ...)`` by name: all that checks ask of pixels, computed in one pass."""


@dataclass(frozen=True)
class Table:
    """Numbers of a finding: ``header`` names the columns, the first cell of each row says what the row is of."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Strip:
    """Tiles that are to be looked at side by side: their positions in the subject, and what is written over them."""

    heading: str
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Finding:
    """One thing that was looked for, found or not.

    Attributes:
        kind: A short name that stays the same: what programs look for in ``audit.json``.
        title: The same for people.
        severity: One of `SEVERITIES`.
        rows: ``(n,)``, positions in the subject of the tiles that it is about.
        summary: What was found, in numbers.
        advice: What to do about it.
        exclude: ``(m,)``, positions of the tiles that had better be left out.
        strips: Tiles to look at.
        table: Numbers by class, set or group.
        figures: Values for programs, by name.
        clusters: ``(n_tiles,)``, the same number for tiles that belong together, or None if it is about no such thing.
        doubts: What others say of the labels of the tiles in `rows`, in their order, where it is about labels.
    """

    kind: str
    title: str
    severity: str
    summary: str
    advice: str = ""
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    exclude: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    strips: Sequence[Strip] = ()
    table: Table | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    clusters: NDArray[np.int64] | None = None
    doubts: Sequence[Doubt] = ()

    @property
    def n(self) -> int:
        """Number of tiles that it is about."""
        return len(self.rows)


@dataclass(frozen=True)
class Check:
    """A family of checks.

    Attributes:
        name: In a progress bar.
        find: Returns what it has to say of a subject.
        measure: What it asks of pixels: from ``(n, size, size, 3)`` uint8 to `Measures`; None if it asks nothing.
    """

    name: str
    find: "Callable[[Subject], Iterable[Finding]]"
    measure: Callable[[NDArray[np.uint8]], Measures] | None = None
