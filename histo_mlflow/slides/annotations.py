"""Regions with classes that somebody has drawn on a slide, from GeoJSON as QuPath writes it; knows nothing of tiles.

QuPath writes a FeatureCollection, an array of features or one feature, plain, as .gz or in a .zip. Coordinates are pixels of
level 0. Its other objects (detections, cells, points, lines) are no regions.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import shapely

from histo_mlflow.base.plain_values import reason_of, shorten
from histo_mlflow.errors import AnnotationError
from histo_mlflow.slides.packed_json import read_packed_json

ENDINGS = (".geojson", ".json", ".geojson.gz", ".json.gz", ".geojson.zip", ".json.zip", ".gz", ".zip")
"""What files are called; of the last two only those that are named one by one."""

IGNORE = "Ignore*"
"""QuPath's class of regions that are to be left out of everything. It has others that end in ``*`` and mean no tissue."""

_LARGEST = 2.0**31  # pixels; no slide is so wide
_DECIMALS = 6  # of a pixel; what is finer says nothing, and GEOS can't tell the side of a line with numbers such as 1e-308
_AGREEMENT = 1e-3  # of two readings of a ring that crosses itself, as a share of the area
_N_NAMED = 5
_AREAS = {"Polygon": 1, "MultiPolygon": 2}
_FORMLESS = ("Point", "MultiPoint", "LineString", "MultiLineString")

Colour = tuple[int, int, int]
Area: TypeAlias = shapely.Polygon | shapely.MultiPolygon


@dataclass(frozen=True, eq=False)
class Region:
    """A region and its class.

    Attributes:
        name: Of the class, as it was given; of a derived class its parts with ``: ``, as QuPath shows it.
        shape: In pixels of level 0; valid and not empty.
        number: Which feature of the file it is, from 1.
        colour: Of the class as it was drawn, RGB, or None.
    """

    name: str
    shape: Area
    number: int
    colour: Colour | None = None


@dataclass(frozen=True, eq=False)
class Annotations:
    """What a file says of a slide.

    Attributes:
        regions: In the order of the file.
        notes: What was passed over or mended, in words.
    """

    regions: tuple[Region, ...]
    notes: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return tuple(sorted({region.name for region in self.regions}))


@dataclass(frozen=True)
class _Feature:
    """An object of a file: `content` as JSON has it, and which it is, from 1."""

    content: Any
    number: int
    file: Path

    @property
    def where(self) -> str:
        return f"{self.file}, feature {self.number}"

    @property
    def properties(self) -> dict[str, Any]:
        found = self.content.get("properties")
        return found if isinstance(found, dict) else {}

    @property
    def kind(self) -> str:
        """What QuPath calls its kind of object: annotation where nothing is said. Before 0.4 it wrote other keys."""
        properties = self.properties
        kind = properties.get("objectType") or properties.get("object_type") or self.content.get("id")
        text = kind.lower() if isinstance(kind, str) else ""
        others = ("detection", "cell", "tile", "tma", "root")
        return next((f"{each}s" for each in others if each in text and "-" not in text), "annotation")


def read_annotations(file: Path, *, unnamed: str = "") -> Annotations:
    """Return the regions of a file that have a class, or all, those without it as `unnamed`, if that is given.

    Objects without a class, without an area and of other kinds are passed over and counted. A ring that crosses itself is
    mended where the two usual readings of it (even-odd; all that is wound about) are the same.

    Raises:
        AnnotationError: The file is no GeoJSON, or a feature can't be read as a region; the message has its number.
    """
    passed: Counter[str] = Counter()
    regions, mended = [], []
    try:
        for feature in _features(read_packed_json(file), file):
            region, what = _read(feature, unnamed)
            if region is None:
                passed[what] += 1
                continue
            regions.append(region)
            if what:
                mended.append(f"{feature.number} ({region.name})")
    except RecursionError:
        raise AnnotationError(f"{file} is nested too deeply; export the annotations of this slide again") from None
    notes = [f"{n} {what} passed over" for what, n in passed.items()]
    if mended:
        more = f" and {len(mended) - _N_NAMED} more" if len(mended) > _N_NAMED else ""
        notes.append(f"rings that cross themselves mended: feature {', '.join(mended[:_N_NAMED])}{more}")
    return Annotations(tuple(regions), tuple(notes))


def _features(content: Any, file: Path) -> Iterator[_Feature]:
    for number, each in enumerate(_flat(content), 1):
        if not isinstance(each, dict) or not isinstance(each.get("type"), str):
            raise AnnotationError(f"{file}, feature {number} is no GeoJSON ({shorten(each)}); export it again")
        # QuPath reads a geometry that stands alone as an annotation without a class.
        yield _Feature(each if each["type"] == "Feature" else {"type": "Feature", "geometry": each}, number, file)


def _flat(content: Any) -> Iterator[Any]:
    if isinstance(content, dict) and content.get("type") == "FeatureCollection" and isinstance(content.get("features"), list):
        yield from content["features"]
    elif isinstance(content, list):
        for each in content:
            yield from _flat(each)
    else:
        yield content


def _read(feature: _Feature, unnamed: str) -> tuple[Region | None, str]:
    """Return the region that a feature is, and whether it was mended in words; or None and why it is none."""
    if feature.kind != "annotation":
        return None, feature.kind
    name, colour = _class_of(feature)
    name = name or unnamed
    if not name:
        return None, "annotations without a class"
    if name.endswith("*") and name != IGNORE:
        return None, f"annotations of QuPath's class {name}"
    shapes = list(_polygons(feature.content.get("geometry"), feature))
    # What is mended may be a collection with lines, of multi-polygons too.
    parts = shapely.get_parts(shapely.get_parts([_mend(shape, feature) for shape in shapes]))
    # The parts of a region are all of it: where they overlap they are no holes.
    union = shapely.union_all([part for part in parts if isinstance(part, shapely.Polygon)])
    if union.is_empty or union.area == 0 or not isinstance(union, Area):
        return None, "annotations without an area (points, lines)"
    is_mended = any(not shape.is_valid for shape in shapes)
    return Region(name, union, feature.number, colour), "mended" if is_mended else ""


def _class_of(feature: _Feature) -> tuple[str, Colour | None]:
    """Return name and colour of the class, "" where there is none."""
    found = feature.properties.get("classification")
    if found is None or isinstance(found, str):
        return (found or "").strip(), None
    name = found.get("name") if isinstance(found, dict) else found
    if isinstance(found, dict) and name is None:
        name = found.get("names")
        name = ": ".join(map(str, name)) if isinstance(name, list) else name
    if name is None:
        return "", None
    if not isinstance(name, str):
        raise AnnotationError(
            f"{feature.where}: the class {shorten(found)} has no name; give it one in QuPath and export it again"
        )
    return name.strip(), _colour_of(found)


def _colour_of(found: dict[str, Any]) -> Colour | None:
    colour, packed = found.get("color"), found.get("colorRGB")
    if isinstance(packed, int):  # before 0.4: one number, its lowest bytes red, green and blue
        colour = [packed >> 16 & 255, packed >> 8 & 255, packed & 255]
    if not isinstance(colour, list) or len(colour) != 3 or any(type(each) is not int or not 0 <= each < 256 for each in colour):
        return None
    return colour[0], colour[1], colour[2]


def _polygons(geometry: Any, feature: _Feature) -> Iterator[shapely.Polygon]:
    """Yield the polygons of a geometry, perhaps not valid; lines and points have none."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind == "GeometryCollection":
        parts = geometry.get("geometries")
        for each in parts if isinstance(parts, list) else []:
            yield from _polygons(each, feature)
    elif kind in _AREAS:
        coordinates = geometry.get("coordinates")
        for rings in [coordinates] if kind == "Polygon" else _as_list(coordinates, feature):
            shell, *holes = (_ring(each, feature) for each in _as_list(rings, feature)) if rings else ([],)
            yield shapely.Polygon(shell, holes)
    elif kind not in _FORMLESS and geometry is not None:
        raise AnnotationError(f"{feature.where}: its geometry is {shorten(kind)}, not a polygon; export it again")


def _as_list(value: Any, feature: _Feature) -> list[Any]:
    if not isinstance(value, list):
        raise AnnotationError(f"{feature.where}: {shorten(value)} stands where coordinates should be; export it again")
    return value


def _ring(points: Any, feature: _Feature) -> list[tuple[float, float]]:
    """Return x and y of a ring; a third number of a point is height, of which a slide has none."""
    try:
        ring = [(float(point[0]), float(point[1])) for point in _as_list(points, feature)]
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        raise AnnotationError(f"{feature.where}: a point has no two numbers; export it again") from None
    if unfit := [point for point in ring if not all(math.isfinite(each) and abs(each) < _LARGEST for each in point)]:
        raise AnnotationError(f"{feature.where}: the point {unfit[0]} lies on no slide; mend or delete it in QuPath")
    if len(ring) < 3:
        raise AnnotationError(f"{feature.where}: a ring has {len(ring)} points; three are needed: mend or delete it in QuPath")
    return ring


def _mend(shape: shapely.Polygon, feature: _Feature) -> shapely.Geometry:
    """Return a valid geometry of the same area; raises `AnnotationError` where it depends on the reading what that is."""
    rounded = shapely.transform(shape, lambda points: points.round(_DECIMALS))
    if rounded.is_valid:
        return rounded
    if shape.is_valid:  # point by point, rounding has brought together what does not touch
        return shapely.set_precision(shape, 10.0**-_DECIMALS)
    shape = rounded
    by_crossings = shapely.make_valid(shape, method="linework")
    by_winding = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    areas = np.array([by_crossings.area, by_winding.area])
    if areas.max() - areas.min() > _AGREEMENT * areas.max():
        x, y = shapely.get_coordinates(shape)[0]
        raise AnnotationError(
            f"{feature.where}, at x {x:.0f}, y {y:.0f}: {reason_of(ValueError(shapely.is_valid_reason(shape)))}, and what is "
            f"inside depends on how it is read ({areas.min():.0f} or {areas.max():.0f} square pixels); draw it again"
        )
    return by_crossings
