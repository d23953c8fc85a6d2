"""Tiles that show no tissue or show it badly: blank, cut, dark, clipped, coarse in values, blurred, written on.

The limits were set on real tiles, so that none of 3,500 sound ones is accused (docs/audits.md).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histo_mlflow.auditing.finding import CLEAR, DOUBTFUL, NOTE, SERIOUS, Check, Finding, Measures, Strip
from histo_mlflow.auditing.spectra import sharpness
from histo_mlflow.auditing.subject import Rows, Subject

BLANK_DEVIATION = 4.0  # grey levels
_COMMON = 0.2  # share of a class from which a fault belongs to it: background is blank, fat is bright
_PER_STRIP = 6

Found = NDArray[np.bool_]


@dataclass(frozen=True)
class _Fault:
    """A fault that single tiles have.

    Attributes:
        kind: Its short name.
        title: For people.
        how: By what it is known.
        of: Returns ``(n_tiles,)``, which tiles have it.
        severity: What it is to have it.
        is_usual: Whether it may belong to a class; then it is no fault where a fifth of the class has it.
    """

    kind: str
    title: str
    how: str
    of: Callable[[Measures], Found]
    severity: str = DOUBTFUL
    is_usual: bool = False


def _is_blank(known: Measures) -> Found:
    return np.asarray(known["deviation"] < BLANK_DEVIATION)


_FAULTS = (
    _Fault("cut_tiles", "Cut or padded tiles", "rows or columns at an edge are of one colour, which may be a file cut short",
           lambda m: (m["flat_edge"] > 0.04) & ~_is_blank(m), SERIOUS),
    _Fault("blank_tiles", "Blank tiles", f"brightness deviates by less than {BLANK_DEVIATION:g} of 255 levels", _is_blank,
           is_usual=True),
    _Fault("dark_tiles", "Tiles in a wrong range of values", "the brightest half per cent of pixels lies below 80 of 255: "
           "perhaps 0 to 1, or 6 bits, stored as 8", lambda m: (m["brightest"] < 80) & ~_is_blank(m), SERIOUS),
    _Fault("coarse_tiles", "Tiles of few values", "of the values that the pixels of a colour span less than 30 % occur",
           lambda m: (m["filled"] < 0.3) & ~_is_blank(m), SERIOUS),
    _Fault("overflown_tiles", "Tiles whose values have overflown", "one pixel in 200 differs from its neighbour by more than "
           "180 levels: values ran over 255 and began again", lambda m: (m["wraps"] > 0.005) & ~_is_blank(m), SERIOUS),
    _Fault("saturated_tiles", "Overexposed tiles", "more than half of the pixels have a colour at 255",
           lambda m: (m["at_255"] > 0.5) & ~_is_blank(m), is_usual=True),
    _Fault("clipped_tiles", "Tiles clipped in the dark", "more than a quarter of the pixels have a colour at 0",
           lambda m: (m["at_0"] > 0.25) & ~_is_blank(m), is_usual=True),
    _Fault("pen_marks", "Pen marks", "more than 5 % of the pixels are green or blue as no H&E is (red and black ink: not seen)",
           lambda m: (m["ink"] > 0.05) & ~_is_blank(m)),
)  # fmt: skip


def _measure(tiles: NDArray[np.uint8]) -> Measures:
    rows = [_measure_tile(np.ascontiguousarray(tile)) for tile in tiles]
    return {name: np.array([row[name] for row in rows], np.float32) for name in rows[0]}


def _measure_tile(tile: NDArray[np.uint8]) -> dict[str, float]:
    grey, colours = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY), cv2.split(tile)
    histograms = np.stack([_histogram(colour) for colour in colours])
    levels = _histogram(grey).cumsum()
    brightest, darkest = (function(function(*colours[:2]), colours[2]) for function in (cv2.max, cv2.min))
    return {
        "deviation": float(cv2.meanStdDev(grey)[1][0, 0]),
        "brightest": float(np.searchsorted(levels, 0.995 * levels[-1])),
        "filled": min(map(_share_of_values, histograms)),
        "at_255": _share(np.equal(brightest, 255)),
        "at_0": _share(np.equal(darkest, 0)),
        "flat_edge": max(_flat_edge(grey), _flat_edge(grey.T)),
        "wraps": max(_share_of_jumps(colour) for colour in colours),
        "ink": _share_of_ink(*colours),
        "sharpness": sharpness(grey.astype(np.float32)),
    }


def _histogram(channel: cv2.typing.MatLike) -> NDArray[np.int64]:
    return np.asarray(cv2.calcHist([channel], [0], None, [256], [0, 256]).ravel(), dtype=np.int64)


def _share_of_values(histogram: NDArray[np.int64]) -> float:
    """Return which share of the values that the middle 96 % of pixels span occurs: little, where bits were dropped."""
    low, high = np.searchsorted(histogram.cumsum(), np.array([0.02, 0.98]) * histogram.sum())
    return float((histogram[low : high + 1] > 0).mean())


def _share(mask: NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(mask) / mask.size)


def _flat_edge(grey: cv2.typing.MatLike) -> float:
    """Return the share of rows, from the first or the last on, that are of one value throughout."""
    is_flat = np.ptp(grey, axis=1) == 0 if np.ptp(grey[[0, -1]], axis=1).min() == 0 else np.zeros(len(grey), bool)
    if is_flat.all():
        return 1.0
    return max(int(np.argmin(is_flat)), int(np.argmin(is_flat[::-1]))) / len(is_flat)


def _share_of_jumps(colour: cv2.typing.MatLike) -> float:
    """Return the share of pixels that differ from their neighbour by more than 180 levels, as where 255 is followed by 0."""
    return _share(np.greater(cv2.absdiff(colour[:, 1:], colour[:, :-1]), 180))


def _share_of_ink(red: cv2.typing.MatLike, green: cv2.typing.MatLike, blue: cv2.typing.MatLike) -> float:
    """Return the share of pixels with more green than red, by 20 levels, green or blue 40 above red, and red below 150.

    Without the last, the background of slides that were scanned with a green cast would count.
    """
    greener = np.greater(cv2.subtract(green, red), 20)  # what is below 0 stays 0
    coloured = np.greater(cv2.subtract(cv2.max(green, blue), red), 40)
    return _share(greener & coloured & np.less(red, 150))


def _find(subject: Subject) -> Iterator[Finding]:
    for fault in _FAULTS:
        yield _describe(subject, fault, fault.of(subject.measures))
    yield _describe(subject, _BLURRED, blurred(subject))
    yield _softness(subject)


_BLURRED = _Fault(
    "blurred_tiles",
    "Blurred tiles",
    "fine detail is at least six times weaker than usual in the class",
    lambda _: np.zeros(0, bool),
)


def blurred(subject: Subject) -> Found:
    """Return which tiles ``(n_tiles,)`` have far less fine detail than others of their class and set."""
    known, found = subject.measures["sharpness"], np.zeros(len(subject), bool)
    is_seen = ~_is_blank(subject.measures)
    for is_test in (False, True):
        for label in range(len(subject.classes)):
            own = (subject.labels == label) & (subject.is_test == is_test) & is_seen
            if own.any():
                found |= own & (known < min(-2.1, float(np.median(known[own])) - 0.8))
    return found


def damaged(subject: Subject) -> Rows:
    """Return the positions ``(n,)`` of tiles with a fault that no class has."""
    found = [rows for fault in _FAULTS if len(rows := _unusual(subject, fault, fault.of(subject.measures)))]
    return np.unique(np.concatenate([*found, np.zeros(0, np.int64)])).astype(np.int64)


def _unusual(subject: Subject, fault: _Fault, has_it: Found) -> Rows:
    """Return the tiles with a fault, without those of classes that it belongs to."""
    if fault.is_usual:
        n_of_class = np.bincount(subject.labels, minlength=len(subject.classes))
        n_with = np.bincount(subject.labels[has_it], minlength=len(subject.classes))
        has_it = has_it & ~(n_with >= np.maximum(_COMMON * n_of_class, 2))[subject.labels]
    return np.flatnonzero(has_it)


def _describe(subject: Subject, fault: _Fault, has_it: Found) -> Finding:
    rows = _unusual(subject, fault, has_it)
    usual = int(has_it.sum()) - len(rows)
    words = f" Not counted: {usual} of classes in which that is usual." if usual else ""
    if not len(rows):
        severity = NOTE if usual else CLEAR
        return Finding(fault.kind, fault.title, severity, f"None that stands out ({fault.how}).{words}", rows=rows)
    counts = ", ".join(f"{name} {count}" for name, count in subject.by_class(rows).items())
    return Finding(
        fault.kind, fault.title, fault.severity,
        f"{len(rows)} of {len(subject)} tiles: {fault.how}. By class: {counts}.{words}",
        "Look at them; exclude.txt leaves them out.", rows, rows, [Strip("", tuple(map(int, rows[:_PER_STRIP])))],
    )  # fmt: skip


def _softness(subject: Subject) -> Finding:
    is_seen = ~_is_blank(subject.measures)
    typical = float(np.median(subject.measures["sharpness"][is_seen])) if is_seen.any() else 0.0
    figures: dict[str, Any] = {"median": typical}
    if typical >= -2.0:
        return Finding(
            "soft_set", "A set without fine detail", CLEAR, f"Detail is as fine as usual ({typical:.2f}).", figures=figures
        )
    return Finding(
        "soft_set", "A set without fine detail", DOUBTFUL,
        f"Half of the tiles have hardly any fine detail ({typical:.2f}, where scanned tissue has -0.6 to -1.6): they were "
        "enlarged from smaller ones, out of focus, or stored with strong compression.",
        "Take tiles from the slides at the scale that is stated, or state the scale that they really have.", figures=figures,
    )  # fmt: skip


CHECK = Check("damage", _find, _measure)
