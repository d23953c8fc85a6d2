"""Tiles whose labels are in doubt, back on the slides that they were cut from: GeoJSON for QuPath, one file for each slide."""

import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histo_mlflow.base.escaping import visible
from histo_mlflow.base.palette import channels, class_colours
from histo_mlflow.base.whole_file import written_whole
from histo_mlflow.tiles.on_slides import OnSlides

_ALL_DOUBTS = uuid.uuid5(uuid.NAMESPACE_URL, "https://geojson.org/histo-mlflow/doubts")
# Names of slides come from a file that anybody may have made.
_UNFIT = re.compile(r'[/\\:*?"<>|\x00-\x1f]')


@dataclass(frozen=True)
class Doubt:
    """A tile whose label is in doubt.

    Attributes:
        row: Its position in the set.
        given: Its class.
        suspected: What others say it is.
        margin: Probability of its class less that of the likeliest other, by others; -1 is the strongest doubt.
    """

    row: int
    given: str
    suspected: str
    margin: float


def write_doubts(folder: Path, places: OnSlides, doubts: Sequence[Doubt], classes: Sequence[str]) -> None:
    """Write ``SLIDE.geojson`` for each slide that has tiles in doubt; the folder appears as a whole, and replaces an older one.

    Each tile is a QuPath tile object of the class that it has, called by its rank among all (1 is the most doubtful) and by the
    class that is suspected; rank and margin are measurements too.

    Args:
        folder: To be written.
        places: Where the tiles of the set lie.
        doubts: The most doubtful first.
        classes: Of the set, in their order, which gives their colours.
    """
    colours = dict(zip(classes, map(channels, class_colours(len(classes))), strict=True))
    by_slide: dict[str, list[dict[str, Any]]] = {}
    for rank, doubt in enumerate(doubts, 1):
        slide = str(places.slides[doubt.row])
        by_slide.setdefault(slide, []).append(_feature(rank, doubt, places, colours))
    files: set[str] = set()
    with written_whole(folder) as draft:
        draft.mkdir()
        for slide, features in by_slide.items():
            name = _file_name(slide, files)
            files.add(name.casefold())
            text = ",\n".join(json.dumps(feature, separators=(",", ":")) for feature in features)
            (draft / name).write_text(f'{{"type":"FeatureCollection","features":[\n{text}\n]}}\n', encoding="utf-8")


def _feature(rank: int, doubt: Doubt, places: OnSlides, colours: dict[str, tuple[int, int, int]]) -> dict[str, Any]:
    left, top, edge = (int(values[doubt.row]) for values in (places.left, places.top, places.edge))
    right, bottom = left + edge, top + edge
    given, suspected = visible(doubt.given), visible(doubt.suspected)
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_ALL_DOUBTS, f"{visible(str(places.slides[doubt.row]))} {left} {top} {edge}")),
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]],
        },
        "properties": {
            "objectType": "tile",
            "name": f"{rank}: {given}, perhaps {suspected}",
            "classification": {"name": given, "color": list(colours[doubt.given])},
            "measurements": {"rank": rank, "margin": round(doubt.margin, 4)},
        },
    }


def _file_name(slide: str, taken: set[str]) -> str:
    stem = _UNFIT.sub("_", visible(slide)).lstrip(".")[:100] or "slide"
    names = (f"{stem}{f' {number}' if number else ''}.geojson" for number in range(len(taken) + 1))
    return next(name for name in names if name.casefold() not in taken)
