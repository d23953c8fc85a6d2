"""What QuPath 0.7 takes of a GeoJSON file, after the source of its reader; features are read one by one."""

import gzip
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ijson
import numpy as np
import shapely

_TYPES = {"tile", "detection", "annotation"}
_BLOCK = 10_000


@dataclass
class Taken:
    """What came of reading a file: how many objects of each type and class, and the names of all measurements."""

    objects: Counter[tuple[str, str]] = field(default_factory=Counter)
    colours: dict[str, tuple[int, ...]] = field(default_factory=dict)
    measurements: set[str] = field(default_factory=set)
    ids: set[bytes] = field(default_factory=set)


def features_of(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rb") as file:
        yield from ijson.items(file, "features.item", use_float=True)


def read_as_qupath(path: Path, size_px: tuple[int, int]) -> Taken:
    """Return what QuPath would have; raises AssertionError for what it refuses, ignores or draws wrongly."""
    with gzip.open(path, "rb") as file:
        assert next(ijson.items(file, "type")) == "FeatureCollection"
    taken, block = Taken(), []
    for feature in features_of(path):
        _take(feature, taken)
        block.append(feature["geometry"])
        if len(block) == _BLOCK:
            _check_geometries(block, size_px)
            block = []
    _check_geometries(block, size_px)
    return taken


def _take(feature: dict[str, Any], taken: Taken) -> None:
    assert set(feature) == {"type", "id", "geometry", "properties"}
    assert feature["type"] == "Feature"
    identity = uuid.UUID(feature["id"])  # any other id is ignored
    assert str(identity) == feature["id"]
    assert identity.version == 5
    assert identity.bytes not in taken.ids
    taken.ids.add(identity.bytes)
    properties = feature["properties"]
    assert set(properties) <= {"objectType", "classification", "measurements", "isLocked"}  # metadata costs memory
    assert properties["objectType"] in _TYPES
    classification = properties["classification"]
    assert set(classification) == {"name", "color"}  # a name without a colour raises
    name, colour = classification["name"], classification["color"]
    assert name == name.strip() != ""
    assert not re.search(r"[\x00-\x1f\ud800-\udfff]", name)  # a name with a line break raises
    assert len(colour) == 3
    assert all(type(channel) is int and 0 <= channel <= 255 for channel in colour)
    assert taken.colours.setdefault(name, tuple(colour)) == tuple(colour)
    for measured, value in properties["measurements"].items():
        assert isinstance(value, int | float)
        assert np.isfinite(value)
        taken.measurements.add(measured)
    taken.objects[properties["objectType"], name] += 1


def _check_geometries(geometries: list[dict[str, Any]], size_px: tuple[int, int]) -> None:
    polygons = []
    for geometry in geometries:
        assert set(geometry) == {"type", "coordinates"}
        assert geometry["type"] == "Polygon"
        rings = geometry["coordinates"]
        for ring in rings:
            assert len(ring) >= 4
            assert ring[0] == ring[-1]
        assert all(type(number) is int for ring in rings for point in ring for number in point)
        polygons.append(shapely.Polygon(rings[0], rings[1:]))
    assert shapely.is_valid(polygons).all()
    assert (shapely.area(polygons) > 0).all()
    left, top, right, bottom = shapely.bounds(polygons).reshape(-1, 4).T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= size_px[0]).all()
    assert (bottom <= size_px[1]).all()
