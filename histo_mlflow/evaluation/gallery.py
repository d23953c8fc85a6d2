"""Which errors are worth looking at, and how they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.metrics import Predictions

_PAIRS, _PER_ROW = 4, 6


@dataclass(frozen=True, eq=False)
class Shown:
    """One tile ``(size, size, 3)`` uint8, the same with its evidence laid over it or None, and what is written below."""

    tile: NDArray[np.uint8]
    overlay: NDArray[np.uint8] | None
    caption: str


@dataclass(frozen=True, eq=False)
class GalleryRow:
    """Tiles under one heading."""

    heading: str
    shown: tuple[Shown, ...]


def most_confused(predictions: Predictions, at_most: int = 5) -> list[tuple[int, int, int]]:
    """Return (true, predicted, tiles) of the commonest errors, the commonest first."""
    errors = predictions.confusion - np.diag(np.diag(predictions.confusion))
    order = np.argsort(-errors, axis=None, kind="stable")[:at_most]
    pairs = [divmod(int(flat), len(predictions.classes)) for flat in order]
    return [(true, called, int(errors[true, called])) for true, called in pairs if errors[true, called] > 0]


def choose_errors(predictions: Predictions) -> list[tuple[str, NDArray[np.int64]]]:
    """Return headings and tiles ``(n,)``: the errors of greatest loss, then the most confident ones of the commonest pairs."""
    wrong = np.flatnonzero(predictions.is_wrong)
    if len(wrong) == 0:
        return []
    worst = wrong[np.argsort(-predictions.losses[wrong], kind="stable")][:_PER_ROW]
    rows = [(f"The {len(worst)} errors of greatest loss", worst)]
    for true, called, n in most_confused(predictions, _PAIRS):
        own = wrong[(predictions.labels[wrong] == true) & (predictions.predicted[wrong] == called)]
        own = own[np.argsort(-predictions.confidence[own], kind="stable")][:_PER_ROW]
        rows.append((f"{predictions.classes[true]} called {predictions.classes[called]}: {n} tiles", own))
    return rows


def lay_over(tile: NDArray[np.uint8], evidence: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the tile with evidence ``(size, size)`` of 0 to 1 laid over it: the brighter and greener, the more."""
    colour = np.array([64.0, 255.0, 64.0])
    share = np.asarray(evidence, dtype=np.float64)[..., None]
    dimmed = tile * (0.55 + 0.45 * share)
    mixed: NDArray[np.uint8] = np.clip(dimmed * (1 - 0.55 * share) + colour * 0.55 * share, 0, 255).astype(np.uint8)
    return mixed


def caption(predictions: Predictions, row: int, position: int) -> str:
    """Return what is to be known of tile `row`: position in its set, label, call and its probability."""
    classes = predictions.classes
    return (
        f"tile {position}: {classes[predictions.labels[row]]}, called {classes[predictions.predicted[row]]} "
        f"({predictions.confidence[row]:.2f})"
    )


def as_sheet(rows: Sequence[GalleryRow]) -> list[tuple[str, list[NDArray[np.uint8]], list[str]]]:
    """Return the rows for `figures.draw_sheet`: tiles, and below each heading's tiles their overlays."""
    sheet = []
    for row in rows:
        captions = [shown.caption.replace(", called", ",\ncalled") for shown in row.shown]
        sheet.append((row.heading, [shown.tile for shown in row.shown], captions))
        if row.shown and row.shown[0].overlay is not None:
            sheet.append(("evidence for the called class", [s.overlay for s in row.shown if s.overlay is not None], []))
    return sheet
