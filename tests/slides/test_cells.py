"""Every part of a slide is counted once, however its tiles overlap."""

import numpy as np
import pytest
import shapely
from hypothesis import given

from histo_mlflow.slides.cells import cells_of, has_gaps
from histo_mlflow.slides.scored import ScoredSlide
from tests.slides.scored_slides import draw_scored, scored_slides


def test_without_overlap_a_cell_is_its_tile() -> None:
    scored = draw_scored((3, 4), edge_px=10)
    cells = cells_of(scored)
    edges = np.stack([scored.places.left, scored.places.top, scored.places.left + 10, scored.places.top + 10], axis=1)
    np.testing.assert_array_equal(cells.bounds, edges)
    assert cells.shape == (3, 4)
    assert cells.areas_mm2.sum() == pytest.approx(12 * (10 * 0.25 / 1000) ** 2)


def test_with_overlap_a_cell_is_the_middle_of_its_tile() -> None:
    cells = cells_of(draw_scored((2, 2), edge_px=100, stride=0.5))
    assert cells.bounds.tolist() == [[25, 25, 75, 75], [75, 25, 125, 75], [25, 75, 75, 125], [75, 75, 125, 125]]
    assert cells.areas_mm2.sum() == pytest.approx(4 * (50 * 0.25 / 1000) ** 2)


def test_tiles_with_gaps_speak_for_themselves_alone() -> None:
    scored = draw_scored((2, 2), edge_px=10, stride=2.0)
    assert has_gaps(scored.places)
    assert cells_of(scored).areas_mm2.sum() == pytest.approx(4 * (10 * 0.25 / 1000) ** 2)


def test_a_stride_that_is_no_whole_number_leaves_no_gap() -> None:
    cells = cells_of(draw_scored((1, 50), edge_px=10, stride=0.37))
    np.testing.assert_array_equal(cells.bounds[1:, 0], cells.bounds[:-1, 2])
    assert set(cells.bounds[:, 2] - cells.bounds[:, 0]) == {3, 4}


@given(scored_slides())
def test_cells_lie_on_the_slide_beside_each_other_and_within_their_tiles(scored: ScoredSlide) -> None:
    cells = cells_of(scored)
    left, top, right, bottom = cells.bounds.T
    assert (left <= right).all()
    assert (top <= bottom).all()
    boxes = shapely.box(left, top, right, bottom)
    assert shapely.union_all(boxes).area == pytest.approx(shapely.area(boxes).sum())
    assert right.max(initial=0) <= scored.size_px[0]
    assert bottom.max(initial=0) <= scored.size_px[1]
    places = scored.places  # half a pixel more, where lines are rounded
    tiles = shapely.box(places.left - 1, places.top - 1, places.left + places.edge_px + 1, places.top + places.edge_px + 1)
    assert shapely.contains(tiles, boxes).all()
