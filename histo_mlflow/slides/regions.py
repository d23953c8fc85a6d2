"""Neighbouring tiles of one class as polygons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from histo_mlflow.slides.cells import Cells, cells_of, has_gaps
from histo_mlflow.slides.scored import ScoredSlide
from histo_mlflow.slides.verdicts import verdicts_of

if TYPE_CHECKING:
    from shapely import Polygon

_UM2_IN_MM2 = 1e6


@dataclass(frozen=True, eq=False)
class Region:
    """Cells of one verdict that share edges, corners do not count.

    Attributes:
        verdict: Position in the names of `Verdicts`.
        polygon: In pixels of level 0: whole numbers, valid, with its holes, no point on a straight line.
        tiles: Positions of its tiles.
        area_mm2: Of its cells, which is that of the polygon.
    """

    verdict: int
    polygon: Polygon
    tiles: NDArray[np.int64]
    area_mm2: float


def regions_of(scored: ScoredSlide, *, smallest_um2: float = 0.0) -> Iterator[Region]:
    """Yield the regions of at least `smallest_um2` square microns, verdict by verdict, the largest first."""
    cells, verdict_of_tile = cells_of(scored), verdicts_of(scored).of_tiles
    on_slide = np.flatnonzero(cells.areas_mm2 > 0)  # the middle of a tile may lie over the end of the slide
    if not len(on_slide):
        return
    region_of_tile = np.full(len(scored), -1)
    region_of_tile[on_slide] = _components(cells, verdict_of_tile, on_slide, apart=has_gaps(scored.places))
    tiles = on_slide[np.lexsort((cells.columns[on_slide], cells.rows[on_slide], region_of_tile[on_slide]))]
    firsts = np.flatnonzero(np.diff(region_of_tile[tiles], prepend=-1))
    ends = np.append(firsts[1:], len(tiles))
    areas_mm2 = np.add.reduceat(cells.areas_mm2[tiles], firsts)
    verdicts = verdict_of_tile[tiles[firsts]]
    # A share of a pixel is forgiven: areas are sums of floats.
    kept = np.flatnonzero(areas_mm2 * _UM2_IN_MM2 >= smallest_um2 * (1 - 1e-9))
    for k in kept[np.lexsort((kept, -areas_mm2[kept], verdicts[kept]))]:
        mine = tiles[firsts[k] : ends[k]]
        yield Region(int(verdicts[k]), _outline(cells, mine), mine, float(areas_mm2[k]))


def _components(cells: Cells, verdicts: NDArray[np.int64], tiles: NDArray[np.int64], *, apart: bool) -> NDArray[np.int64]:
    """Return the region of each of `tiles`, numbered from 0 without a gap."""
    if apart:
        return np.arange(len(tiles))
    rows, columns, verdicts = cells.rows[tiles], cells.columns[tiles], verdicts[tiles]
    raster = np.full(cells.shape, -1, np.int16)
    raster[rows, columns] = verdicts
    numbers = np.zeros(len(tiles), np.int64)
    first = 0
    for verdict in np.unique(verdicts):
        n_labels, labels = cv2.connectedComponents((raster == verdict).astype(np.uint8), connectivity=4, ltype=cv2.CV_32S)
        mine = verdicts == verdict
        numbers[mine] = first + labels[rows[mine], columns[mine]] - 1  # label 0 is what is not of this verdict
        first += n_labels - 1
    return numbers


def _outline(cells: Cells, tiles: NDArray[np.int64]) -> Polygon:
    """Return the union of cells, which come row by row from the left; runs of a row are one box: far fewer to unite."""
    import shapely

    rows, columns, bounds = cells.rows[tiles], cells.columns[tiles], cells.bounds[tiles]
    goes_on = (rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1] + 1)
    first = np.flatnonzero(np.r_[True, ~goes_on])
    last = np.r_[first[1:], len(tiles)] - 1
    left, top, right, bottom = bounds[first, 0], bounds[first, 1], bounds[last, 2], bounds[last, 3]
    united = shapely.union_all(shapely.box(left, top, right, bottom))
    return shapely.Polygon(_corners(united.exterior), [_corners(ring) for ring in united.interiors])


def _corners(ring: object) -> NDArray[np.float64]:
    """Return the points of a ring at which it turns, closed."""
    import shapely

    points = shapely.get_coordinates(ring)[:-1]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turning = points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return np.concatenate([turning, turning[:1]])
