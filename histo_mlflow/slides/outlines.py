"""Masks as polygons and back; in pixels of level 0, whatever the scale of the mask."""

import numpy as np
import shapely
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_BAND_ROWS = 64  # united at once: each run of pixels is half a kilobyte as a polygon


def outlines_of(mask: Mask, downsample: float, size_px: tuple[int, int]) -> list[shapely.Polygon]:
    """Return the pieces of a mask as valid polygons with holes, from the top, cut off where the slide ends.

    Steps of single pixels are smoothed: an outline stays within a pixel of the mask, and somebody can take hold of its points.
    """
    bands = [_united(mask[first : first + _BAND_ROWS], first) for first in range(0, len(mask), _BAND_ROWS)]
    united = shapely.union_all(bands)
    smooth = shapely.make_valid(shapely.simplify(united, 1.0))
    scaled = shapely.transform(smooth, lambda points: points * downsample)
    on_slide = shapely.intersection(scaled, shapely.box(0, 0, *size_px))
    pieces = [part for part in shapely.get_parts(on_slide) if isinstance(part, shapely.Polygon) and part.area > 0]
    return sorted(pieces, key=lambda piece: (piece.bounds[1], piece.bounds[0]))


def _united(mask: Mask, first_row: int) -> shapely.Geometry:
    """Return what rows of a mask cover, in its pixels."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, starts), (_, ends) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    rows += first_row
    return shapely.union_all(shapely.box(starts, rows, ends, rows + 1))


def filled(region: shapely.Geometry, shape: tuple[int, int], downsample: float) -> Mask:
    """Return ``(height, width)`` bool: the pixels of a mask whose centres lie in a region (even-odd rule; Foley et al. 1990).

    Args:
        region: A valid polygon or several, in pixels of level 0; holes are holes.
        shape: Height and width of the mask.
        downsample: Pixels of level 0 that make one of the mask.
    """
    turns = np.zeros((shape[0], shape[1] + 1), dtype=np.uint8)
    points, ring = shapely.get_coordinates(_rings(region), return_index=True)
    x, y = (points / downsample).T
    same = ring[1:] == ring[:-1]
    x0, y0, x1, y1 = x[:-1][same], y[:-1][same], x[1:][same], y[1:][same]
    # A line crosses the centres of these rows; one that runs along a row crosses none.
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, shape[0]).astype(np.int64)
    n_rows = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, shape[0]).astype(np.int64) - first
    line = np.repeat(np.arange(len(first)), n_rows)
    row = np.arange(len(line)) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows) + first[line]
    slope = (x1 - x0)[line] / (y1 - y0)[line]
    column = np.clip(np.ceil(x0[line] + (row + 0.5 - y0[line]) * slope - 0.5), 0, shape[1]).astype(np.int64)
    np.bitwise_xor.at(turns, (row, column), 1)
    mask: Mask = np.bitwise_xor.accumulate(turns, axis=1)[:, :-1].astype(bool)
    return mask


def _rings(region: shapely.Geometry) -> NDArray[np.object_]:
    polygons = [part for part in shapely.get_parts(shapely.get_parts(region)) if isinstance(part, shapely.Polygon)]
    rings: NDArray[np.object_] = shapely.get_rings(polygons)
    return rings
