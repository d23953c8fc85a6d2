"""GeoJSON as QuPath takes it: every tile, once, in its place, also of a slide of a million tiles."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings

from histo_mlflow.base.escaping import visible
from histo_mlflow.base.palette import channels
from histo_mlflow.slides.annotations import read_annotations
from histo_mlflow.slides.cells import cells_of
from histo_mlflow.slides.geojson import write_geojson
from histo_mlflow.slides.regions import regions_of
from histo_mlflow.slides.scored import ScoredSlide
from histo_mlflow.slides.verdicts import verdicts_of
from histo_mlflow.slides.viewer_options import ViewerOptions
from tests.conftest import PROJECT
from tests.slides.qupath_rules import features_of, read_as_qupath
from tests.slides.scored_slides import draw_scored, scored_slides

ALL = ViewerOptions(smallest_region_um2=0)


def _write(scored: ScoredSlide, folder: Path, options: ViewerOptions = ALL) -> Path:
    file = folder / "slide.geojson.gz"
    write_geojson(scored, file, options)
    return file


def _tiles(file: Path) -> list[dict[str, object]]:
    return [each for each in features_of(file) if each["properties"]["objectType"] != "annotation"]


def test_a_tile_has_its_place_class_colour_and_probabilities(tmp_path: Path) -> None:
    scored = draw_scored((4, 5), classes=("A", "B"))
    verdicts = verdicts_of(scored)
    tiles = _tiles(_write(scored, tmp_path))
    assert len(tiles) == 20
    for k, tile in enumerate(tiles):
        polygon = shapely.from_geojson(json.dumps(tile["geometry"]))
        left, top = int(scored.places.left[k]), int(scored.places.top[k])
        assert polygon.equals(shapely.box(left, top, left + 224, top + 224))
        properties = tile["properties"]
        verdict = verdicts.of_tiles[k]
        expected = {"name": verdicts.names[verdict], "color": list(channels(verdicts.colours[verdict]))}
        assert properties["classification"] == expected
        a, b = scored.probabilities[k]
        measured = {"prob_A": pytest.approx(a, abs=6e-5), "prob_B": pytest.approx(b, abs=6e-5)}
        assert properties["measurements"] == measured | {"spread": pytest.approx(scored.spread[k], abs=6e-5)}


def test_what_the_model_is_not_sure_of_is_a_grey_class_of_its_own(tmp_path: Path) -> None:
    scored = draw_scored((9, 9))
    taken = read_as_qupath(_write(scored, tmp_path), scored.size_px)
    assert taken.objects["tile", "not sure"] == scored.abstained.sum() > 0
    assert taken.colours["not sure"] == (200, 200, 200)


def test_regions_say_their_area_their_tiles_and_their_mean_probabilities(tmp_path: Path) -> None:
    scored = draw_scored((12, 12))
    regions = [each for each in features_of(_write(scored, tmp_path)) if each["properties"]["objectType"] == "annotation"]
    assert regions
    assert all(each["properties"]["isLocked"] is True for each in regions)
    measured = [each["properties"]["measurements"] for each in regions]
    assert sum(each["tiles"] for each in measured) == 144
    assert sum(each["area_mm2"] for each in measured) == pytest.approx(144 * 0.056**2, rel=1e-5)
    totals = sum(each["tiles"] * each["prob_TUM"] for each in measured)
    assert totals / 144 == pytest.approx(scored.probabilities[:, 8].mean(), abs=1e-3)


def test_regions_are_read_again_as_annotations(tmp_path: Path) -> None:
    scored = draw_scored((12, 12))
    found = read_annotations(_write(scored, tmp_path))
    regions = list(regions_of(scored))
    names = verdicts_of(scored).names
    assert [(each.name, each.shape.area) for each in found.regions] == [(names[r.verdict], r.polygon.area) for r in regions]
    assert found.notes == ("144 tiles passed over",)


def test_options_say_which_objects_there_are(tmp_path: Path) -> None:
    scored = draw_scored((6, 6), classes=("A", "B"))
    taken = read_as_qupath(_write(scored, tmp_path, ViewerOptions(objects="detection", regions=False)), scored.size_px)
    assert {kind for kind, _ in taken.objects} == {"detection"}
    unlocked = next(features_of(_write(scored, tmp_path, ViewerOptions(lock_regions=False))))
    assert "isLocked" not in unlocked["properties"]
    few = read_as_qupath(_write(scored, tmp_path, ViewerOptions(smallest_region_um2=1e9)), scored.size_px)
    assert {kind for kind, _ in few.objects} == {"tile"}


def test_the_same_slide_gives_the_same_file_and_another_slide_other_ids(tmp_path: Path) -> None:
    scored = draw_scored((5, 5))
    first, again = _write(scored, tmp_path).read_bytes(), _write(scored, tmp_path).read_bytes()
    assert first == again
    ids = {each["id"] for each in features_of(_write(scored, tmp_path))}
    other = ScoredSlide("another slide", scored.size_px, 0.25, scored.places, scored.classes, scored.probabilities)
    assert not ids & {each["id"] for each in features_of(_write(other, tmp_path))}


def test_a_slide_without_tiles_gives_a_collection_without_features(tmp_path: Path) -> None:
    file = _write(draw_scored((0, 0)), tmp_path)
    assert json.loads(gzip.decompress(file.read_bytes())) == {"type": "FeatureCollection", "features": []}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scored_slides())
def test_qupath_takes_it_whatever_the_slide(tmp_path: Path, scored: ScoredSlide) -> None:
    file = _write(scored, tmp_path)
    taken = read_as_qupath(file, scored.size_px)
    on_slide = cells_of(scored).areas_mm2 > 0
    assert sum(n for (kind, _), n in taken.objects.items() if kind == "tile") == on_slide.sum()
    names = {visible(name) for name in scored.classes}
    assert {f"prob_{name}" for name in names} <= taken.measurements or not on_slide.any()
    by_json = json.loads(gzip.decompress(file.read_bytes()))["features"]
    assert len(by_json) == len(taken.ids)


def test_a_hundred_thousand_tiles(tmp_path: Path) -> None:
    scored = draw_scored((250, 400), stride=0.5)
    taken = read_as_qupath(_write(scored, tmp_path, ViewerOptions()), scored.size_px)
    assert sum(n for (kind, _), n in taken.objects.items() if kind == "tile") == 100_000
    assert sum(n for (kind, _), n in taken.objects.items() if kind == "annotation") > 10


_MILLION = """
import resource, sys
from pathlib import Path
from histo_mlflow.slides.geojson import write_geojson
from histo_mlflow.slides import regions  # with its libraries
import shapely
from tests.slides.scored_slides import draw_scored
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scored = draw_scored((1000, 1000))
before = peak()
write_geojson(scored, Path(sys.argv[1]))
print((peak() - before) / 1024)
"""


@pytest.mark.slow
def test_a_million_tiles_in_bounded_memory(tmp_path: Path) -> None:
    file = tmp_path / "million.geojson.gz"
    done = subprocess.run(
        [sys.executable, "-c", _MILLION, file], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=600
    )
    assert float(done.stdout) < 300, "MiB beyond the tiles themselves"
    scored = draw_scored((1000, 1000))
    taken = read_as_qupath(file, scored.size_px)
    tiles = {name: n for (kind, name), n in taken.objects.items() if kind == "tile"}
    verdicts = verdicts_of(scored)
    counts = np.bincount(verdicts.of_tiles, minlength=len(verdicts.names))
    assert tiles == {name: n for name, n in zip(verdicts.names, counts.tolist(), strict=True) if n}
    assert file.stat().st_size < 100 * 1_000_000
