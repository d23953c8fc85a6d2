"""Which errors are worth looking at, and how they are shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.counting import many
from histo_mlflow.evaluation.predictions import Predictions

_PAIRS = 4
PER_ROW = 6
"""Tiles in a row of a page; its rows of three and of two on narrow screens are full too."""

Words = Callable[[Sequence[str]], str]
"""What is written, from how the classes are called: by name on a page, in pictures sometimes by number."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One tile ``(size, size, 3)`` uint8, the same with its evidence laid over it or None, and what is written below.

    `origin` says how the tile is found again: its file or its position, and its group.
    """

    tile: NDArray[np.uint8]
    overlay: NDArray[np.uint8] | None
    caption: Words
    origin: str = ""


@dataclass(frozen=True, eq=False)
class GalleryRow:
    """Tiles under one heading."""

    heading: Words
    shown: tuple[Shown, ...]


@dataclass(frozen=True, eq=False)
class Album:
    """The tiles that a page shows, in rows.

    Attributes:
        errors: To look at.
        examples: Of each class.
        seen: What the network was shown while it learnt.
    """

    errors: Sequence[GalleryRow] = ()
    examples: Sequence[GalleryRow] = ()
    seen: Sequence[GalleryRow] = ()


def most_confused(predictions: Predictions) -> list[tuple[int, int, int]]:
    """Return (true, predicted, tiles) of the errors, the commonest first."""
    errors = predictions.confusion - np.diag(np.diag(predictions.confusion))
    order = np.argsort(-errors, axis=None, kind="stable")
    pairs = [divmod(int(flat), len(predictions.classes)) for flat in order]
    return [(true, called, int(errors[true, called])) for true, called in pairs if errors[true, called] > 0]


def choose_errors(predictions: Predictions) -> list[tuple[Words, NDArray[np.int64]]]:
    """Return headings and tiles ``(n,)``: the errors of greatest loss, then the most confident ones of the commonest pairs.

    A pair with fewer tiles than a row holds shares one with the other errors, the most confident first.
    """
    wrong = np.flatnonzero(predictions.is_wrong)
    if len(wrong) == 0:
        return []
    worst = wrong[np.argsort(-predictions.losses[wrong], kind="stable")][:PER_ROW]
    rows: list[tuple[Words, NDArray[np.int64]]] = [(lambda _: f"The {many(len(worst), 'error')} of greatest loss", worst)]
    shown = worst
    for true, called, n in most_confused(predictions)[:_PAIRS]:
        own = wrong[(predictions.labels[wrong] == true) & (predictions.predicted[wrong] == called)]
        own = own[np.argsort(-predictions.confidence[own], kind="stable")][:PER_ROW]
        if len(own) == PER_ROW:
            rows.append((partial(_describe_pair, true, called, n), own))
            shown = np.concatenate([shown, own])
    others = np.setdiff1d(wrong, shown)
    others = others[np.argsort(-predictions.confidence[others], kind="stable")][:PER_ROW]
    if len(others):
        rows.append((lambda _: "Other errors, the most confident", others))
    return rows


def choose_examples(predictions: Predictions) -> list[tuple[int, NDArray[np.int64]]]:
    """Return each class that has tiles, and some of its tiles, evenly drawn from their order; the same ones every time."""
    found = []
    for k in range(len(predictions.classes)):
        own = np.flatnonzero(predictions.labels == k)
        if len(own):
            found.append((k, own[np.unique(np.linspace(0, len(own) - 1, min(PER_ROW, len(own))).round().astype(np.int64))]))
    return found


def _describe_pair(true: int, called: int, n: int, names: Sequence[str]) -> str:
    return f"{names[true]} called {names[called]}: {n} tiles"


def lay_over(tile: NDArray[np.uint8], evidence: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the tile with evidence ``(size, size)`` of 0 to 1 laid over it: the brighter and greener, the more."""
    colour = np.array([64.0, 255.0, 64.0])
    share = np.asarray(evidence, dtype=np.float64)[..., None]
    dimmed = tile * (0.55 + 0.45 * share)
    mixed: NDArray[np.uint8] = np.clip(dimmed * (1 - 0.55 * share) + colour * 0.55 * share, 0, 255).astype(np.uint8)
    return mixed


def caption(predictions: Predictions, row: int, position: int) -> Words:
    """Return what is to be known of tile `row`: position in its set, label, call and its probability."""
    true, called, confidence = predictions.labels[row], predictions.predicted[row], predictions.confidence[row]
    return lambda names: f"tile {position}: {names[true]}, called {names[called]} ({confidence:.2f})"


def as_sheet(rows: Sequence[GalleryRow], names: Sequence[str]) -> list[tuple[str, list[NDArray[np.uint8]], list[str]]]:
    """Return the rows of a contact sheet as heading, pictures and captions: tiles, and below them their overlays."""
    sheet = []
    for row in rows:
        captions = [shown.caption(names).replace(", called", ",\ncalled") for shown in row.shown]
        sheet.append((row.heading(names), [shown.tile for shown in row.shown], captions))
        if row.shown and row.shown[0].overlay is not None:
            sheet.append(("evidence for the called class", [s.overlay for s in row.shown if s.overlay is not None], []))
    return sheet
