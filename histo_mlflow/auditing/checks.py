"""All families of checks, in the order of the page; a new one is a module with a `Check` and its line here."""

from collections.abc import Iterator, Sequence

import numpy as np

from histo_mlflow.auditing import centres, colour, compression, damage, duplicates, labels, shortcuts, siblings
from histo_mlflow.auditing.finding import SEVERITIES, Check, Finding
from histo_mlflow.auditing.measuring import measure
from histo_mlflow.auditing.subject import Subject
from histo_mlflow.base.progress import Bar
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.tiles.tile_set import TileSet

CHECKS: tuple[Check, ...] = (
    duplicates.CHECK, siblings.CHECK, labels.CHECK, damage.CHECK, compression.CHECK, colour.CHECK, shortcuts.CHECK,
    centres.CHECK,
)  # fmt: skip

CHEAP: tuple[Check, ...] = (duplicates.CHECK, damage.CHECK)
"""Those that every training begins with."""


def look_at(
    data: TileSet,
    test: TileSet | None = None,
    *,
    features: "np.ndarray | None" = None,
    predictions: Predictions | None = None,
    checks: Sequence[Check] = CHECKS,
    seed: int = 0,
) -> Subject:
    """Return the tiles with all that `checks` ask of their pixels, read once."""
    of_sets = [measure(tiles, checks) for tiles in (data, test) if tiles is not None]
    measures = {name: _joined([each[name] for each in of_sets]) for name in of_sets[0]}
    return Subject(data, test, measures, features, predictions, seed)


def _joined(arrays: "list[np.ndarray]") -> "np.ndarray":
    """Return arrays one behind the other; of tiles of different sizes the shorter ones are filled up with zeros."""
    longest = max(array.shape[-1] for array in arrays) if arrays[0].ndim > 1 else 0
    padded = [
        np.pad(array, [*[(0, 0)] * (array.ndim - 1), (0, longest - array.shape[-1])]) if array.ndim > 1 else array
        for array in arrays
    ]
    return np.concatenate(padded)


def find_all(subject: Subject, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Return the findings of all `checks`, the most serious first."""
    return sorted(_each(subject, checks), key=lambda finding: SEVERITIES.index(finding.severity))


def _each(subject: Subject, checks: Sequence[Check]) -> Iterator[Finding]:
    for check in Bar(checks, unit="check", desc="checks"):
        yield from check.find(subject)
