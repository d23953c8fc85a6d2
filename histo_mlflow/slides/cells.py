"""The part of a slide that each tile speaks for, so that tiles which overlap are drawn and counted once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.slides.places import Places
from histo_mlflow.slides.scored import ScoredSlide

_UM2_IN_MM2 = 1e6


@dataclass(frozen=True)
class Cells:
    """A square in the middle of each tile, as wide as the stride, or the whole tile where tiles do not overlap.

    Neighbours meet in one line of pixels, also where the stride is no whole number, and all end where the slide ends.

    Attributes:
        columns: ``(n_tiles,)`` int64 place of each on the grid of the slide, from 0; likewise `rows`.
        rows: See `columns`.
        shape: Rows and columns of the grid; ``(0, 0)`` without tiles.
        bounds: ``(n_tiles, 4)`` int64 left, top, right and bottom in pixels of level 0.
        corner_px: Left and top of the grid in pixels of level 0, before rounding.
        microns_per_pixel: Of level 0.
    """

    columns: NDArray[np.int64]
    rows: NDArray[np.int64]
    shape: tuple[int, int]
    bounds: NDArray[np.int64]
    corner_px: tuple[float, float]
    microns_per_pixel: float

    @property
    def areas_mm2(self) -> NDArray[np.float64]:
        """``(n_tiles,)``."""
        left, top, right, bottom = self.bounds.T
        areas: NDArray[np.float64] = (right - left) * (bottom - top) * (self.microns_per_pixel**2 / _UM2_IN_MM2)
        return areas


def cells_of(scored: ScoredSlide) -> Cells:
    """Return the cell of each tile."""
    places = scored.places
    if not len(places):
        nothing = np.zeros(0, np.int64)
        return Cells(nothing, nothing, (0, 0), np.zeros((0, 4), np.int64), (0.0, 0.0), scored.microns_per_pixel)
    corner = _corner(places.left, places), _corner(places.top, places)
    columns, (left, right) = _along(places.left, corner[0], places)
    rows, (top, bottom) = _along(places.top, corner[1], places)
    width, height = scored.size_px
    bounds = np.stack([left.clip(0, width), top.clip(0, height), right.clip(0, width), bottom.clip(0, height)], axis=1)
    shape = int(rows.max()) + 1, int(columns.max()) + 1
    return Cells(columns, rows, shape, bounds, corner, scored.microns_per_pixel)


def has_gaps(places: Places) -> bool:
    """Return whether tiles do not touch, so that each speaks for itself alone; strides are not rounded, edges are."""
    return places.stride_px >= places.edge_px + 1


def _corner(starts: NDArray[np.int64], places: Places) -> float:
    """Return where the first cell of the grid begins on one axis."""
    return int(starts.min()) + (places.edge_px - places.stride_px) / 2


def _along(starts: NDArray[np.int64], corner: float, places: Places) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the place of each tile on one axis of the grid ``(n_tiles,)``, and the ends of its cell ``(2, n_tiles)``."""
    steps = np.rint((starts - starts.min()) / places.stride_px).astype(np.int64)
    if has_gaps(places):
        return steps, np.stack([starts, starts + places.edge_px])
    lines = np.rint(corner + places.stride_px * np.stack([steps, steps + 1])).astype(np.int64)
    return steps, lines
