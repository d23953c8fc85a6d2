"""One line for each slide: how much of it is what, and how the work on it went; knows nothing of who does the work.

Each slide has a JSON of its own, so that workers do not wait for one another; `summary.csv` is made of all that are there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from histo_mlflow.base.escaping import visible
from histo_mlflow.base.whole_file import written_whole
from histo_mlflow.errors import WorkError
from histo_mlflow.slides.cells import cells_of
from histo_mlflow.slides.scored import ScoredSlide
from histo_mlflow.slides.tissue import Tissue

DONE, NO_TISSUE, FAILED = "done", "no tissue", "failed"
SUMMARY_FILE = "summary.csv"

_UM2_IN_MM2 = 1e6
_OF_ALL = ("classes", "areas_mm2")
_DIGITS = 6
_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class SlideSummary:
    """What is said of one slide.

    Attributes:
        slide: Its file name without the ending, which is the name of its JSON too.
        state: `DONE`, `NO_TISSUE` or `FAILED`.
        why: What went wrong, in one line, of a slide that failed.
        model: Name and version, or address, of the model.
        sha256: Of the slide's file or files.
        tiles: How many were looked at.
        unreadable_tiles: How many could not be decoded, and were left out.
        tissue_mm2: Area of what was found to be tissue; None if nobody looked.
        tissue_share: The same as a share of the slide.
        scored_mm2: Area that tiles speak for, counted once where they overlap.
        abstained_share: Share of `scored_mm2` that the model is not sure of; None if it was not asked.
        mean_confidence: Mean probability of the class that is named; None without tiles.
        seconds: From opening the slide to its last file.
        reading_share: Share of `seconds` in which the work waited for pixels.
        classes: Names, in the model's order.
        areas_mm2: Area of each class: of the tiles that the model is sure of, if it was asked.
    """

    slide: str
    state: str = DONE
    why: str = ""
    model: str = ""
    sha256: str = ""
    tiles: int = 0
    unreadable_tiles: int = 0
    tissue_mm2: float | None = None
    tissue_share: float | None = None
    scored_mm2: float = 0.0
    abstained_share: float | None = None
    mean_confidence: float | None = None
    seconds: float | None = None
    reading_share: float | None = None
    classes: tuple[str, ...] = ()
    areas_mm2: tuple[float, ...] = ()

    @property
    def tiles_per_second(self) -> float | None:
        """Tiles for each second from opening the slide to its last file."""
        return self.tiles / self.seconds if self.seconds else None

    def with_facts(self, **facts: Any) -> SlideSummary:
        """Return the same with some attributes set: what the work knows and the tiles do not."""
        return replace(self, **facts)


def summarize(scored: ScoredSlide, tissue: Tissue | None = None) -> SlideSummary:
    """Return what the tiles of a slide say: areas and shares of the classes, of tissue and of what the model is not sure of."""
    areas = cells_of(scored).areas_mm2
    total = float(areas.sum())
    sure = np.ones(len(scored), bool) if scored.abstained is None else ~scored.abstained
    of_classes = np.bincount(scored.called[sure], weights=areas[sure], minlength=len(scored.classes)) if len(scored) else None
    summary = SlideSummary(
        slide=scored.name,
        state=DONE if len(scored) else NO_TISSUE,
        tiles=len(scored),
        unreadable_tiles=len(scored.unreadable),
        scored_mm2=total,
        abstained_share=None if scored.abstained is None or not total else float(areas[~sure].sum()) / total,
        mean_confidence=float(scored.probabilities.max(axis=1).mean(dtype=np.float64)) if len(scored) else None,
        classes=scored.classes,
        areas_mm2=(0.0,) * len(scored.classes) if of_classes is None else tuple(of_classes.tolist()),
    )
    if tissue is None:
        return summary
    width, height = scored.size_px
    slide_mm2 = width * height * scored.microns_per_pixel**2 / _UM2_IN_MM2
    tissue_mm2 = min(tissue.area_mm2(scored.microns_per_pixel), slide_mm2)  # the last pixels of a mask reach over the slide
    return summary.with_facts(tissue_mm2=tissue_mm2, tissue_share=tissue_mm2 / slide_mm2)


def write_slide_summary(summary: SlideSummary, path: Path) -> None:
    """Write the JSON of one slide, whole or not at all."""
    with written_whole(path) as draft:
        draft.write_text(json.dumps(asdict(summary), indent=1) + "\n", encoding="utf-8")


def read_slide_summary(path: Path) -> SlideSummary:
    """Return what the JSON of one slide says.

    Raises:
        WorkError: It is not such a JSON.
    """
    known = {each.name for each in fields(SlideSummary)}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        facts: dict[str, Any] = {name: value for name, value in content.items() if name in known}
        return SlideSummary(**facts | {name: tuple(facts[name]) for name in _OF_ALL if name in facts})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WorkError(f"{path} is not the summary of a slide ({error}); delete it and run the slide again") from None


def write_summary(files: Sequence[Path], path: Path) -> None:
    """Write the table of all slides whose JSONs are given, by name of slide, whole or not at all.

    Raises:
        WorkError: One of them is not such a JSON.
    """
    found = sorted((read_slide_summary(file) for file in files), key=lambda each: each.slide)
    classes = list(dict.fromkeys(name for each in found for name in each.classes))
    rows = [_row(each, classes) for each in found]
    with written_whole(path) as draft, draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, fieldnames=list(_row(SlideSummary(""), classes)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def gather_summaries(folder: Path, path: Path) -> None:
    """Write the table of all slides that have a JSON in `folder`; of several workers that do so the last one sees them all.

    Each writes its JSON before it waits for the lock, so whoever writes last has everybody's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_SECONDS):
        write_summary(sorted(folder.glob("*.json")), path)


def _row(summary: SlideSummary, classes: Sequence[str]) -> Mapping[str, str]:
    areas = dict(zip(summary.classes, summary.areas_mm2, strict=True))
    row: dict[str, Any] = {
        "slide": summary.slide,
        "state": summary.state if not summary.why else f"{summary.state}: {visible(summary.why)}",
        "tiles": summary.tiles,
        "unreadable_tiles": summary.unreadable_tiles,
        "tissue_mm2": summary.tissue_mm2,
        "tissue_share": summary.tissue_share,
        "scored_mm2": summary.scored_mm2,
    }
    for name in classes:
        area = areas.get(name)
        row[f"area_mm2_{name}"] = area
        row[f"share_{name}"] = area / summary.scored_mm2 if area is not None and summary.scored_mm2 else None
    row |= {
        "abstained_share": summary.abstained_share,
        "mean_confidence": summary.mean_confidence,
        "seconds": summary.seconds,
        "tiles_per_second": summary.tiles_per_second,
        "reading_share": summary.reading_share,
        "model": summary.model,
        "sha256": summary.sha256,
    }
    return {name: _in_words(value) for name, value in row.items()}


def _in_words(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)
