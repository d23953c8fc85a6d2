"""A scored slide as QuPath takes it: GeoJSON with a tile or detection for each tile, and an annotation for each merged region.

What QuPath 0.7 reads is written in docs/slides.md. One feature stands on a line, and no more than some thousands of them are in
memory at a time.
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from histo_mlflow.base.escaping import visible
from histo_mlflow.base.palette import channels
from histo_mlflow.base.whole_file import written_whole
from histo_mlflow.slides.cells import cells_of
from histo_mlflow.slides.regions import regions_of
from histo_mlflow.slides.scored import ScoredSlide
from histo_mlflow.slides.verdicts import Verdicts, verdicts_of
from histo_mlflow.slides.viewer_options import ViewerOptions

_ALL_SLIDES = uuid.uuid5(uuid.NAMESPACE_URL, "https://geojson.org/histo-mlflow")
_BLOCK_TILES = 5_000
_LEVEL = 6  # of gzip: 9 takes twice the time for 2 % less
_BEGIN, _BETWEEN, _END = '{"type":"FeatureCollection","features":[\n', ",\n", "\n]}\n"


def write_geojson(scored: ScoredSlide, path: Path, options: ViewerOptions | None = None) -> None:
    """Write the gzipped FeatureCollection of a slide, whole or not at all: its regions, then its tiles in their order.

    The same slide gives the same file, byte for byte, and the same place of a slide of the same name the same id.
    """
    options = options or ViewerOptions()
    with (
        written_whole(path) as draft,
        draft.open("wb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=_LEVEL, mtime=0) as zipped,
    ):
        zipped.write(_BEGIN.encode())
        between = ""
        for block in _blocks(scored, options):
            zipped.write((between + _BETWEEN.join(block)).encode())
            between = _BETWEEN
        zipped.write(_END.encode())


def _blocks(scored: ScoredSlide, options: ViewerOptions) -> Iterator[list[str]]:
    verdicts, names = verdicts_of(scored), uuid.uuid5(_ALL_SLIDES, visible(scored.name))
    if options.regions:
        for feature in _regions(scored, verdicts, names, options):
            yield [json.dumps(feature, separators=(",", ":"))]
    cells = cells_of(scored)
    has_area = cells.areas_mm2 > 0
    templates = [_template(scored, verdicts, k, options.objects) for k in range(len(verdicts.names))]
    for first in range(0, len(scored), _BLOCK_TILES):
        rows = slice(first, first + _BLOCK_TILES)
        numbers = scored.probabilities[rows]
        if scored.spread is not None:
            numbers = np.column_stack([numbers, scored.spread[rows]])
        chosen = zip(
            scored.places.left[rows].tolist(),
            scored.places.top[rows].tolist(),
            cells.bounds[rows].tolist(),
            verdicts.of_tiles[rows].tolist(),
            numbers.tolist(),
            has_area[rows].tolist(),
            strict=True,
        )
        block = [
            templates[k]
            % (uuid.uuid5(names, f"tile {x} {y}"), left, top, right, top, right, bottom, left, bottom, left, top, *values)
            for x, y, (left, top, right, bottom), k, values, is_seen in chosen
            if is_seen
        ]
        if block:
            yield block


def _template(scored: ScoredSlide, verdicts: Verdicts, k: int, object_type: str) -> str:
    """Return the feature of a tile with this verdict, for ``%``: id, ten coordinates, then the measurements."""
    measured = [f"prob_{visible(name)}" for name in scored.classes] + ["spread"] * (scored.spread is not None)
    classification = json.dumps(_classification(verdicts, k), separators=(",", ":")).replace("%", "%%")
    measurements = ",".join(f"{json.dumps(name)}:".replace("%", "%%") + "%.4f" for name in measured)
    return (
        '{"type":"Feature","id":"%s","geometry":{"type":"Polygon","coordinates":'
        "[[[%d,%d],[%d,%d],[%d,%d],[%d,%d],[%d,%d]]]},"
        f'"properties":{{"objectType":"{object_type}","classification":{classification},"measurements":{{{measurements}}}}}}}'
    )


def _classification(verdicts: Verdicts, k: int) -> dict[str, Any]:
    return {"name": verdicts.names[k], "color": channels(verdicts.colours[k])}


def _regions(scored: ScoredSlide, verdicts: Verdicts, names: uuid.UUID, options: ViewerOptions) -> Iterator[dict[str, Any]]:
    for region in regions_of(scored, smallest_um2=options.smallest_region_um2):
        rings = [_whole_numbers(ring) for ring in (region.polygon.exterior, *region.polygon.interiors)]
        top, left = min((y, x) for x, y in rings[0])  # no other region of any verdict has this corner
        means = scored.probabilities[region.tiles].mean(axis=0, dtype=np.float64)
        measurements = {"area_mm2": round(region.area_mm2, 6), "tiles": len(region.tiles)}
        measurements |= {
            f"prob_{visible(name)}": round(mean, 4) for name, mean in zip(scored.classes, means.tolist(), strict=True)
        }
        locked = {"isLocked": True} if options.lock_regions else {}
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(names, f"region {left} {top}")),
            "geometry": {"type": "Polygon", "coordinates": rings},
            "properties": {
                "objectType": "annotation",
                "classification": _classification(verdicts, region.verdict),
                **locked,
                "measurements": measurements,
            },
        }


def _whole_numbers(ring: Any) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in ring.coords]
