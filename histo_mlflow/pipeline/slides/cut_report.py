"""What is said of tiles that were cut from slides: a table, a record of each slide, a picture to look at."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.digests import sha256_of
from histo_mlflow.base.escaping import visible
from histo_mlflow.base.lettering import letter
from histo_mlflow.base.palette import channels, class_colours
from histo_mlflow.base.whole_file import written_whole
from histo_mlflow.console import format_table
from histo_mlflow.evaluation.plots import begin_picture
from histo_mlflow.pipeline.slides.cut import CutPlan, Marked, count_tiles, join_parts
from histo_mlflow.slides.annotations import IGNORE
from histo_mlflow.slides.cutting import LITTLE_TISSUE, areas_of
from histo_mlflow.slides.open import open_slide
from histo_mlflow.slides.overview import read_overview
from histo_mlflow.slides.parts import SlidePart

if TYPE_CHECKING:  # matplotlib is imported where a picture begins
    from matplotlib.axes import Axes

_MOST_SHOWN, _COLUMNS = 12, 4
_SHOWN_PX = 900
_TINT = 0.5
_CONFLICT = (0, 0, 0)


def describe_cut(parts: Sequence[SlidePart], marked: Marked) -> str:
    """Return how many tiles, slides and patients there are of each class, and how many tiles are left out and why."""
    left_out = sum((part.left_out for part in parts), Counter[tuple[str, str]]())
    reasons = sorted({reason for _, reason in left_out})
    patients = marked.patients
    rows = []
    for name in marked.classes:
        having = [part for part in parts if part.counts[name]]
        n_tiles = sum(part.counts[name] for part in having)
        n_patients = len({patients[part.name] for part in having})
        lost = [str(left_out[name, reason] or "") for reason in reasons]
        rows.append([name, str(n_tiles), str(len(having)), str(n_patients), *lost])
    table = format_table(["class", "tiles", "slides", "patients", *(f"({reason})" for reason in reasons)], rows)
    pairs = sum((part.pairs for part in parts), Counter[tuple[str, str]]())
    both = [f"{n} tiles lie in {first} and {second} at once" for (first, second), n in pairs.most_common()]
    return "\n".join([table, *both, *_hints(left_out, count_tiles(parts))])


def _hints(left_out: Counter[tuple[str, str]], counts: Mapping[str, int]) -> list[str]:
    """Return what had better be asked of classes of which most tiles are left out for their little tissue."""
    return [
        f"most of {name} is left out for its little tissue; if the class looks so (fat, mucus, glass): without_tissue={name}"
        for (name, why), n in sorted(left_out.items())
        if why == LITTLE_TISSUE and n > counts.get(name, 0)
    ]


def write_set(output: Path, parts: Sequence[SlidePart], plan: CutPlan, marked: Marked) -> list[Path]:
    """Write the set, then the picture and the record, and return these two."""
    join_parts(parts, plan, marked, output)
    picture, record = output.with_suffix(".png"), output.with_suffix(".json")
    write_record(record, parts, plan, marked)
    draw_cut(picture, parts, marked)
    return [picture, record]


def write_record(file: Path, parts: Sequence[SlidePart], plan: CutPlan, marked: Marked) -> None:
    """Write what the tiles were made of and how, as JSON: options, and of each slide its files, tiles, and conflicts."""
    by_name = {pair.slide.name: pair for pair in marked.pairs}
    slides = [
        {
            "slide": part.name,
            "file": str(by_name[part.name].slide.path),
            "patient": marked.patients[part.name],
            "annotations": str(by_name[part.name].annotations),
            "annotations_sha256": sha256_of(by_name[part.name].annotations),
            "edge_px": part.edge_px,
            "tiles": dict(sorted(part.counts.items())),
            "left_out": [{"class": name, "why": why, "tiles": n} for (name, why), n in sorted(part.left_out.items())],
            "in_two_classes": part.conflicts.tolist(),
        }
        for part in parts
    ]
    record = {"plan": asdict(plan), "new_names": dict(marked.new_names), "slides": slides}
    with written_whole(file) as draft:
        draft.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")


def draw_cut(file: Path, parts: Sequence[SlidePart], marked: Marked) -> None:
    """Write a picture of the slides, at most twelve: their regions as outlines, their tiles tinted, conflicts black."""
    counts = count_tiles(parts)
    classes = list(counts)
    colours = dict(zip(classes, class_colours(len(classes)), strict=True))
    shown = parts[:_MOST_SHOWN]
    n_columns = min(len(shown), _COLUMNS)
    n_rows = -(-len(shown) // n_columns)
    picture = begin_picture((max(3.4 * n_columns, 5.0), 3.6 * n_rows + 0.6))
    for axes in (places := picture.subplots(n_rows, n_columns, squeeze=False).ravel()):
        axes.set_axis_off()
    for axes, part in zip(places, shown, strict=False):
        _draw_slide(axes, part, marked, colours)
    _add_legend(picture, [(f"{visible(name)}: {counts[name]} tiles", colours[name]) for name in classes], parts)
    letter(picture)
    with written_whole(file) as draft:
        picture.savefig(draft, dpi=150, format="png")


def _add_legend(picture: Any, entries: list[tuple[str, str]], parts: Sequence[SlidePart]) -> None:
    from matplotlib.patches import Patch

    n_conflicts = sum(len(part.conflicts) for part in parts)
    handles = [Patch(color=colour, label=label) for label, colour in entries]
    if n_conflicts:
        handles.append(Patch(color="black", label=f"in two classes, left out: {n_conflicts}"))
    picture.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), frameon=False, fontsize="small")
    if len(parts) > _MOST_SHOWN:
        picture.suptitle(f"the first {_MOST_SHOWN} of {len(parts)} slides", fontsize="small")


def _draw_slide(axes: "Axes", part: SlidePart, marked: Marked, colours: dict[str, str]) -> None:
    pair = next(pair for pair in marked.pairs if pair.slide.name == part.name)
    slide = open_slide(pair.slide.path, pair.slide.microns_per_pixel)
    try:
        picture, downsample = read_overview(slide, max(slide.size_px) / _SHOWN_PX)
    finally:
        slide.close()
    picture = picture.copy()
    kept = np.flatnonzero(part.is_kept)
    for left, top, name in zip(part.left[kept].tolist(), part.top[kept].tolist(), part.classes[kept].tolist(), strict=True):
        _tint(picture, (left, top, part.edge_px), downsample, channels(colours[name]))
    for left, top in part.conflicts.tolist():
        _tint(picture, (left, top, part.edge_px), downsample, _CONFLICT)
    axes.imshow(picture, interpolation="nearest")
    for name, area in areas_of(marked.annotations[part.name], marked.new_names).items():
        colour = colours.get(name, "black")
        style = "dashed" if name == IGNORE else "solid"
        for polygon in _polygons(area):
            for ring in (polygon.exterior, *polygon.interiors):
                xy = np.asarray(ring.coords)[:, :2] / downsample - 0.5
                axes.plot(xy[:, 0], xy[:, 1], color=colour, linewidth=0.9, linestyle=style)
    axes.set_title(f"{visible(part.name)}: {len(part)} tiles", fontsize="small")


def _polygons(area: Any) -> list[Any]:
    return [each for each in getattr(area, "geoms", [area]) if each.geom_type == "Polygon"]


def _tint(picture: NDArray[np.uint8], square: tuple[int, int, int], downsample: float, colour: tuple[int, int, int]) -> None:
    """Tint a square of level 0 in a smaller picture, with a hair's breadth to the next one where there is room."""
    left, top, edge = (value / downsample for value in square)
    gap = 1 if edge >= 6 else 0
    part = picture[
        round(top) : max(round(top + edge) - gap, round(top) + 1), round(left) : max(round(left + edge) - gap, round(left) + 1)
    ]
    part[:] = (part * (1 - _TINT) + np.array(colour) * _TINT).astype(np.uint8)
