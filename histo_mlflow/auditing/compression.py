"""How tiles were stored before they came here: JPEG by quality and traces of its blocks, enlargement from smaller ones."""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from histo_mlflow.auditing.damage import BLANK_DEVIATION
from histo_mlflow.auditing.finding import CLEAR, DOUBTFUL, NOTE, Check, Finding, Measures, Strip, Table
from histo_mlflow.auditing.spectra import is_of_jpeg, periodic_peaks, second_derivatives
from histo_mlflow.auditing.subject import Rows, Subject
from histo_mlflow.base.counting import many

_QUALITY = 90  # of the JPEG whose size is measured
_STANDS_OUT = 12.0  # of a peak over the median of the spectrum: 8 is the most that sound tiles have (docs/audits.md)
_SMALLEST_PX = 64  # in smaller tiles the spectrum has too few frequencies
_PER_STRIP, _N_FILES = 6, 400

# The beginning of the table of brightness that annex K of JPEG's standard gives, which libjpeg takes for quality 50.
_STANDARD = np.array([16.0, 11.0, 10.0])


def _measure(tiles: NDArray[np.uint8]) -> Measures:
    encoding = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    tiles = np.ascontiguousarray(tiles)
    return {
        "jpeg_bytes": np.array([len(cv2.imencode(".jpg", tile, encoding)[1]) for tile in tiles], np.float32),
        "derivatives": np.stack(
            [second_derivatives(cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY).astype(np.float32)) for tile in tiles]
        ),
    }


def _find(subject: Subject) -> Iterator[Finding]:
    qualities = file_qualities(subject)
    yield _by_class(subject, qualities)
    for name, tiles in subject.sets.items():
        if tiles.tile_size_px >= _SMALLEST_PX:
            yield _enlargement(subject, name)


def file_qualities(subject: Subject) -> dict[int, int]:
    """Return the JPEG quality of tiles that are JPEG files, by position; of many, of some of each class and set."""
    generator = np.random.default_rng(subject.seed)
    keys = subject.labels * 2 + subject.is_test
    chosen = [generator.permutation(np.flatnonzero(keys == key))[:_N_FILES] for key in np.unique(keys)]
    found: dict[int, int] = {}
    for row in np.concatenate(chosen):
        file = subject.files[row]
        if file is not None and file.suffix.lower() in {".jpg", ".jpeg"}:
            with Image.open(file) as opened:
                tables = getattr(opened, "quantization", {})
            if 0 in tables:
                found[int(row)] = _quality_of(np.array(tables[0][:3], float))
    return found


def _quality_of(first: NDArray[np.float64]) -> int:
    """Return the quality in libjpeg's scale that scales the standard table to these first entries."""
    scale = float(np.median(first / _STANDARD)) * 100
    return round(max(1.0, 5000 / scale if scale > 100 else (200 - scale) / 2))


def _by_class(subject: Subject, qualities: dict[int, int]) -> Finding:
    rows, medians, blocks = [], [], []
    for is_test in (False, True):
        for label, name in enumerate(subject.classes):
            own = np.flatnonzero((subject.labels == label) & (subject.is_test == is_test))
            if not len(own):
                continue
            known = [qualities[int(row)] for row in own if int(row) in qualities]
            blockiness = _blockiness(subject, own)
            blocks.append(blockiness)
            medians += [float(np.median(known))] if known else []
            kilobytes = np.median(subject.measures["jpeg_bytes"][own]) / 1000
            quality = f"{np.median(known):.0f} ({min(known)} to {max(known)})" if known else "not JPEG files"
            label_words = f"{name}{' (test)' if is_test else ''}"
            rows.append((label_words, f"{len(own)}", quality, f"{blockiness:.1f}", f"{kilobytes:.1f} kB"))
    spread = max(medians) - min(medians) if medians else 0.0
    differs = spread > 5 or (min(blocks) < 5 and max(blocks) > 15)
    return Finding(
        "jpeg_by_class", "JPEG by class", DOUBTFUL if differs else NOTE,
        f"JPEG quality of the files differs by {spread:.0f} between classes; traces of JPEG's blocks stand out of the mean "
        f"spectrum {min(blocks):.0f} to {max(blocks):.0f} times (below 3: none).",
        "Where classes were stored differently, a network can tell them by that: store all alike, and augment with JPEG."
        if differs else "",
        table=Table(("class", "tiles", "quality of files", "traces of blocks", f"size at quality {_QUALITY}"), tuple(rows)),
        figures={"quality_spread": spread, "blockiness_min": min(blocks), "blockiness_max": max(blocks)},
    )  # fmt: skip


def _derivatives(subject: Subject, rows: Rows) -> NDArray[np.float32]:
    size = (subject.test if subject.test is not None and subject.is_test[rows[0]] else subject.data).tile_size_px
    return np.asarray(subject.measures["derivatives"][rows][..., : size - 2])


def _blockiness(subject: Subject, rows: Rows) -> float:
    mean = _derivatives(subject, rows).mean(axis=0)
    frequencies, height = periodic_peaks(mean)
    of_jpeg = is_of_jpeg(frequencies, mean.shape[-1]) & (frequencies < 0.45)
    return float(height[of_jpeg].max(initial=0.0))


def _enlargement(subject: Subject, name: str) -> Finding:
    own = np.flatnonzero(subject.is_test == (name == "test_data"))
    own = own[subject.measures["deviation"][own] >= BLANK_DEVIATION]
    kind, title = f"resized_{name}", f"Tiles enlarged from smaller ones ({name})"
    peaks = [_other_peak(one) for one in _derivatives(subject, own)] if len(own) else []
    rows = own[[height > _STANDS_OUT for _, height in peaks]] if peaks else own
    if not len(rows):
        return Finding(
            kind, title, CLEAR, "No trace of enlargement (by exactly 2, 4 or 8 there is none to be seen: see fine detail)."
        )
    frequency = float(np.median([where for where, height in peaks if height > _STANDS_OUT]))
    factors = " or ".join(f"{factor:.2g}" for factor in sorted({1 / (1 - frequency), 1 / frequency}))
    is_whole = len(rows) > len(own) / 2
    return Finding(
        kind, title, DOUBTFUL,
        f"The period of an enlargement, by about {factors}, in {len(rows)} of {many(len(own), 'tile')}: what they seem to "
        "resolve they do not hold.",
        "State the microns per pixel of the original, and compare only with sets that were treated alike." if is_whole
        else "Look at them; exclude.txt leaves them out.",
        rows, rows[:0] if is_whole else rows, [Strip("", tuple(map(int, rows[:_PER_STRIP])))], figures={"frequency": frequency},
    )  # fmt: skip


def _other_peak(derivatives: NDArray[np.float32]) -> tuple[float, float]:
    """Return the frequency that stands out most among those that are not JPEG's, and by how much."""
    frequencies, height = periodic_peaks(derivatives)
    other = np.where(is_of_jpeg(frequencies, derivatives.shape[-1]), 0.0, height)
    best = int(other.argmax())
    return float(frequencies[best]), float(other[best])


CHECK = Check("compression", _find, _measure)
