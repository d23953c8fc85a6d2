"""Regions are the tiles of one class that hang together: all of them, once, with their holes, as valid polygons."""

import numpy as np
import pytest
import shapely
from hypothesis import given

from histo_mlflow.slides.cells import cells_of
from histo_mlflow.slides.regions import regions_of
from histo_mlflow.slides.scored import ScoredSlide
from histo_mlflow.slides.verdicts import verdicts_of
from tests.slides.scored_slides import lay, scored_slides


def _drawn(*lines: str, stride: float = 1.0) -> ScoredSlide:
    """A slide of tiles of 10 px whose classes are drawn: A, B, or no tile."""
    letters = np.array([list(line) for line in lines])
    places = lay(letters != ".", 10, stride)
    called = (letters[letters != "."] == "B").astype(int)
    return ScoredSlide("drawn", (1000, 1000), 1.0, places, ("A", "B"), np.eye(2, dtype=np.float32)[called])


def _areas(scored: ScoredSlide, **how: float) -> list[tuple[int, float, int]]:
    return [(each.verdict, each.polygon.area, len(each.polygon.interiors)) for each in regions_of(scored, **how)]


def test_a_hole_stays_a_hole_and_what_is_in_it_a_region() -> None:
    scored = _drawn("AAAA", "AB.A", "AAAA")
    assert _areas(scored) == [(0, 1000.0, 1), (1, 100.0, 0)]
    outer = next(regions_of(scored)).polygon
    assert len(outer.exterior.coords) == 5  # no point on a straight line
    assert shapely.Polygon(outer.interiors[0]).bounds == (10, 10, 30, 20)


def test_tiles_that_touch_at_a_corner_are_two_regions() -> None:
    assert _areas(_drawn("AB", "BA")) == [(0, 100.0, 0), (0, 100.0, 0), (1, 100.0, 0), (1, 100.0, 0)]


def test_a_ring_that_closes_at_a_corner_is_a_valid_polygon() -> None:
    (region,) = (each for each in regions_of(_drawn("AAA", "A.A", "AA.")) if each.verdict == 0)
    assert region.polygon.is_valid
    assert region.polygon.area == 700.0


def test_overlapping_tiles_become_the_cells_in_their_middle() -> None:
    assert _areas(_drawn("AA", "AA", stride=0.5)) == [(0, 100.0, 0)]
    assert _areas(_drawn("AA", "AA", stride=2.0)) == [(0, 100.0, 0)] * 4


def test_small_regions_are_left_out_and_large_ones_come_first() -> None:
    scored = _drawn("A.AAA.AA")
    assert [area for _, area, _ in _areas(scored)] == [300.0, 200.0, 100.0]
    assert [area for _, area, _ in _areas(scored, smallest_um2=200)] == [300.0, 200.0]
    assert not _areas(scored, smallest_um2=301)


@given(scored_slides())
def test_regions_hold_every_tile_once(scored: ScoredSlide) -> None:
    cells, verdicts = cells_of(scored), verdicts_of(scored).of_tiles
    regions = list(regions_of(scored))
    polygons = [each.polygon for each in regions]
    assert shapely.is_valid(polygons).all()
    um2 = scored.microns_per_pixel**2 / 1e6
    for region in regions:
        assert region.area_mm2 == pytest.approx(region.polygon.area * um2)
        assert (verdicts[region.tiles] == region.verdict).all()
        left, top, right, bottom = cells.bounds[region.tiles].T
        assert shapely.covers(region.polygon, shapely.box(left, top, right, bottom)).all()
    assert sum(each.area_mm2 for each in regions) == pytest.approx(cells.areas_mm2.sum())
    assert shapely.union_all(polygons).area == pytest.approx(sum(each.area for each in polygons))
    tiles = np.concatenate([each.tiles for each in regions]) if regions else np.zeros(0, int)
    assert sorted(tiles) == np.flatnonzero(cells.areas_mm2 > 0).tolist()
