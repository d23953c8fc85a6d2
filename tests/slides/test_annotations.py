"""What QuPath writes is read as regions; what can't be one is named, with the number of its feature."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import shapely

from histo_mlflow.errors import AnnotationError
from histo_mlflow.slides.annotations import read_annotations
from tests.drawn_slides import feature, rectangle, write_features

_SQUARE = rectangle(0, 0, 100, 100)


def _write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def _zip(path: Path, text: str) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/x.txt", "no")
        archive.writestr("a.geojson", text)


def test_every_form_that_qupath_writes_is_the_same(tmp_path: Path) -> None:
    one = feature("Tumor", _SQUARE)
    collection = json.dumps({"type": "FeatureCollection", "features": [one]})
    files = [_write(tmp_path / f"{k}.geojson", each) for k, each in enumerate((collection, [one], one))]
    (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(collection.encode()))
    _zip(tmp_path / "a.zip", collection)
    for file in [*files, tmp_path / "a.geojson.gz", tmp_path / "a.zip"]:
        (region,) = read_annotations(file).regions
        assert (region.name, region.shape.area, region.number, region.colour) == ("Tumor", 10_000, 1, (200, 0, 0)), file


@pytest.mark.parametrize(
    ("classification", "name", "colour"),
    [
        ("Tumor", "Tumor", None),
        ({"name": "Tumor", "color": [1, 2, 3]}, "Tumor", (1, 2, 3)),
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, "Tumor: Positive", (1, 2, 3)),
        ({"name": "Stroma", "colorRGB": -6895466}, "Stroma", (150, 200, 150)),
        ({"name": " Tumor ", "color": "red"}, "Tumor", None),
    ],
)
def test_a_class_has_many_forms(tmp_path: Path, classification: Any, name: str, colour: Any) -> None:
    one = feature(None, _SQUARE, classification=classification)
    (region,) = read_annotations(_write(tmp_path / "a.json", one)).regions
    assert (region.name, region.colour) == (name, colour)


def test_holes_and_parts(tmp_path: Path) -> None:
    holed = feature("A", _SQUARE, rectangle(10, 10, 20, 20))
    parts = feature("B", _SQUARE)
    parts["geometry"] = {"type": "MultiPolygon", "coordinates": [[list(_SQUARE)], [list(rectangle(50, 50, 150, 150))]]}
    mixed = feature("C")
    mixed["geometry"] = {"type": "GeometryCollection", "geometries": [
        {"type": "Point", "coordinates": [1, 2]}, {"type": "Polygon", "coordinates": [[[*xy, 7] for xy in _SQUARE]]},
    ]}  # fmt: skip
    areas = [region.shape.area for region in read_annotations(write_features(tmp_path / "a.json", holed, parts, mixed)).regions]
    assert areas == [9_900, 17_500, 10_000], "a part over another is no hole"


def test_what_is_finer_than_a_slide_can_show_is_rounded_away(tmp_path: Path) -> None:
    """GEOS can't tell on which side of a line such a point lies, and gives up."""
    drawn = feature("A", [(0, 2), (1, 0), (-1, -1)]), feature("B", [(0, -1), (1, 0), (1.1125369292536007e-308, 2)])
    first, second = (each.shape for each in read_annotations(write_features(tmp_path / "a.json", *drawn)).regions)
    assert set(map(tuple, shapely.get_coordinates(second).tolist())) == {(0, -1), (1, 0), (0, 2)}
    alone = shapely.intersection(shapely.difference(first, second), shapely.box(0, 0, 10, 10))
    assert alone.area == pytest.approx(0)


def test_a_hole_that_nearly_touches_the_outline_stays_one(tmp_path: Path) -> None:
    near = feature("A", [(0, 0), (10, 0), (10, 10), (0, 10)])
    near["geometry"]["coordinates"].append([[1e-7, 1], [3, 1], [3, 3], [1e-7, 3], [1e-7, 1]])
    read = read_annotations(write_features(tmp_path / "a.json", near))
    assert [each.shape.area for each in read.regions] == [94]
    assert not read.notes


def test_what_is_no_region_is_counted(tmp_path: Path) -> None:
    line = feature("A")
    line["geometry"] = {"type": "LineString", "coordinates": [[0, 0], [5, 5]]}
    features = [
        feature("A", _SQUARE),
        feature(None, _SQUARE),
        feature({"name": None, "color": [0, 0, 0]}, _SQUARE),
        line,
        feature("A", rectangle(5, 5, 5, 9)),
        feature("A", _SQUARE, objectType="detection"),
        feature("A", _SQUARE, objectType="detection"),
        feature("Region*", _SQUARE),
        {"type": "Feature", "id": "PathDetectionObject", "geometry": None, "properties": {"classification": {"name": "A"}}},
    ]
    found = read_annotations(write_features(tmp_path / "a.json", *features))
    assert len(found.regions) == 1
    assert set(found.notes) == {
        "2 annotations without a class passed over",
        "2 annotations without an area (points, lines) passed over",
        "3 detections passed over",
        "1 annotations of QuPath's class Region* passed over",
    }


def test_a_real_file_of_qupath(real_data: Path) -> None:
    """It is a geometry alone, which QuPath reads as an annotation without a class."""
    file = real_data / "polyp_section" / "qupath_polygon.geojson"
    assert read_annotations(file).notes == ("1 annotations without a class passed over",)
    classed = {"type": "Feature", "geometry": json.loads(file.read_text()), "properties": {"classification": "Tumor"}}
    assert classed["geometry"]["type"] == "MultiPolygon"


def test_a_real_outline_with_a_class(tmp_path: Path, real_data: Path) -> None:
    geometry = json.loads((real_data / "polyp_section" / "qupath_polygon.geojson").read_text())
    file = _write(tmp_path / "a.json", {"type": "Feature", "geometry": geometry, "properties": {"classification": "Tumor"}})
    (region,) = read_annotations(file).regions
    assert region.shape.is_valid
    assert region.shape.area > 0


def test_a_ring_that_crosses_itself_is_mended_where_there_is_one_reading(tmp_path: Path) -> None:
    bow_tie = feature("A", [(0, 0), (10, 10), (10, 0), (0, 10)])
    spur = feature("B", [(0, 0), (10, 0), (10, 10), (15, 10), (10, 10), (0, 10)])
    found = read_annotations(write_features(tmp_path / "a.json", bow_tie, spur))
    assert [region.shape.area for region in found.regions] == [50, 100]
    assert all(region.shape.is_valid for region in found.regions)
    assert found.notes == ("rings that cross themselves mended: feature 1 (A), 2 (B)",)


_TWICE_AROUND = [(0, 0), (10, 0), (10, 10), (0, 10), (0, 0), (2, 2), (8, 2), (8, 8), (2, 8), (2, 2)]
_BAD_FEATURES: dict[str, tuple[dict[str, Any], str]] = {
    "wound twice": (feature("A", _TWICE_AROUND), "feature 2, at x 0, y 0: .*depends on how it is read.*draw it again"),
    "hole outside": (feature("A", _SQUARE, rectangle(50, 50, 150, 80)), "feature 2.*depends on how it is read"),
    "infinite": (feature("A", [(0, 0), (1e999, 0), (1, 1)]), "feature 2: the point .*lies on no slide"),
    "far": (feature("A", [(0, 0), (1e12, 0), (1, 1)]), "feature 2: the point .*lies on no slide"),
    "two points": (feature("A", [(0, 0), (1, 1)]), "feature 2: a ring has 2 points"),
    "text": (feature("A", [("x", 0), (1, 0), (1, 1)]), "feature 2: a point has no two numbers"),  # type: ignore[list-item]
    "null": (feature("A", [(None, 0), (1, 0), (1, 1)]), "feature 2: a point has no two numbers"),  # type: ignore[list-item]
    "number as class": (feature(7, _SQUARE), "feature 2: the class 7 has no name"),
    "number as name": (feature({"name": 7}, _SQUARE), "feature 2: the class .* has no name"),
    "circle": ({"type": "Feature", "geometry": {"type": "Circle"}, "properties": {"classification": "A"}}, "'Circle'|Circle"),
    "no list": (
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": 3}, "properties": {"classification": "A"}},
        "feature 2: 3 stands where coordinates should be",
    ),
    "no feature": ({"a": 1}, "feature 2 is no GeoJSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", _BAD_FEATURES)
def test_a_bad_feature_is_named_by_its_number(tmp_path: Path, case: str) -> None:
    bad, reason = _BAD_FEATURES[case]
    file = write_features(tmp_path / "a.geojson", feature("A", _SQUARE), bad)
    with pytest.raises(AnnotationError, match=reason) as error:
        read_annotations(file)
    assert str(file) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def _bomb(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(520):
            file.write(bytes(2**20))


_BAD_FILES: dict[str, Any] = {
    "empty": b"",
    "no JSON": b"<xml/>",
    "deep": b"[" * 100_000,
    "bytes": bytes(range(256)),
    "cut gzip": gzip.compress(b"[]" * 100)[:30],
    "cut zip": b"PK\x03\x04abc",
    "huge number": b'{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[' + b"9" * 5000 + b",1]]]}}",
}


@pytest.mark.parametrize("case", _BAD_FILES)
def test_a_bad_file_is_refused_with_its_name(tmp_path: Path, case: str) -> None:
    file = tmp_path / "a.geojson"
    file.write_bytes(_BAD_FILES[case])
    with pytest.raises(AnnotationError) as error:
        read_annotations(file)
    assert str(file) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_what_unpacks_to_more_than_anybody_draws_is_refused(tmp_path: Path) -> None:
    _bomb(tmp_path / "a.geojson.gz")
    with pytest.raises(AnnotationError, match=r"larger than 512 MiB unpacked; export annotations alone"):
        read_annotations(tmp_path / "a.geojson.gz")


def test_a_zip_without_geojson_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "no")
    with pytest.raises(AnnotationError, match=r"the zip holds no \.geojson"):
        read_annotations(tmp_path / "a.zip")
