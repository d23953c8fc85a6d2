"""The pictures that a heat map is made of, as pixels: the slide, its classes, its numbers; knows nothing of their sheet."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.palette import channels
from histo_mlflow.slides.cells import cells_of
from histo_mlflow.slides.scored import ScoredSlide
from histo_mlflow.slides.tissue import Tissue
from histo_mlflow.slides.verdicts import Verdicts

Pixels = NDArray[np.uint8]

COLOURS_OF_NUMBERS = "cividis"

_OUTLINE = (30, 30, 30)
_HATCH = (110, 110, 110)
_HATCH_PX, _LINE_PX = 9, 2
_PALE = 0.6  # how much of the slide's own light is seen where nothing is painted
_RELIEF = 0.22  # how much darker a colour is on dark tissue, which is what the eye finds its way by


@dataclass(frozen=True, eq=False)
class Ground:
    """A slide as one small picture, on which things are painted.

    Attributes:
        pixels: ``(height, width, 3)`` uint8.
        tile_at: ``(height, width)`` int64 position of the tile that is seen at each pixel, -1 where there is none.
        outline: ``(height, width)`` bool, the border of the tissue.
        unreadable: ``(height, width)`` bool, tiles that could not be decoded.
    """

    pixels: Pixels
    tile_at: NDArray[np.int64]
    outline: NDArray[np.bool_]
    unreadable: NDArray[np.bool_]


def lay_ground(scored: ScoredSlide, picture: Pixels, tissue: Tissue | None, size: tuple[int, int]) -> Ground:
    """Return a slide at ``size = (width, height)``, from a picture of all of it."""
    pixels = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    return Ground(pixels, _tile_at(scored, size), _outline(scored, tissue, size), _unreadable(scored, size))


def paint_slide(ground: Ground) -> Pixels:
    """Return the slide as it is, with the border of its tissue."""
    return np.where(ground.outline[..., None], np.array(_OUTLINE, np.uint8), ground.pixels)


def paint_verdicts(ground: Ground, verdicts: Verdicts) -> Pixels:
    """Return the slide with each tile in the colour of its class; hatched where the model is not sure."""
    colours = np.array([channels(colour) for colour in verdicts.colours], np.float32)
    seen = ground.tile_at >= 0
    verdict = verdicts.of_tiles[ground.tile_at[seen]]
    painted = _painted(ground, seen, colours[verdict])
    if verdicts.has_not_sure:
        not_sure = np.zeros(seen.shape, bool)
        not_sure[seen] = verdict == len(verdicts.names) - 1
        painted[not_sure & hatch(seen.shape)] = _HATCH
    return painted


def paint_numbers(ground: Ground, values: NDArray[np.float32], limits: tuple[float, float]) -> Pixels:
    """Return the slide with each tile in the colour of its number, the darkest for the first limit."""
    from matplotlib import colormaps

    first, last = limits
    seen = ground.tile_at >= 0
    shares = (values[ground.tile_at[seen]] - first) / (last - first)
    return _painted(ground, seen, 255 * colormaps[COLOURS_OF_NUMBERS](shares)[:, :3].astype(np.float32))


def hatch(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return slanting lines, ``(height, width)``."""
    return np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % _HATCH_PX < _LINE_PX


def _painted(ground: Ground, seen: NDArray[np.bool_], colours: NDArray[np.float32]) -> Pixels:
    light = cv2.cvtColor(ground.pixels, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    painted = np.repeat(255 * (1 - _PALE * (1 - light))[..., None], 3, axis=2)
    painted[seen] = colours * (1 - _RELIEF * (1 - light[seen]))[:, None]
    painted[ground.unreadable] = 0
    painted[ground.outline] = _OUTLINE
    return np.rint(painted).clip(0, 255).astype(np.uint8)


def _tile_at(scored: ScoredSlide, size: tuple[int, int]) -> NDArray[np.int64]:
    cells, stride = cells_of(scored), scored.places.stride_px
    shown = np.full((size[1], size[0]), -1, np.int64)
    if not len(scored):
        return shown
    grid = np.full(cells.shape, -1, np.int64)
    grid[cells.rows, cells.columns] = np.arange(len(scored))
    columns, rows = (
        np.floor(((np.arange(n_px) + 0.5) * (n_full / n_px) - corner) / stride).astype(np.int64)
        for n_px, n_full, corner in zip(size, scored.size_px, cells.corner_px, strict=True)
    )
    across, down = (columns >= 0) & (columns < cells.shape[1]), (rows >= 0) & (rows < cells.shape[0])
    shown[np.ix_(down, across)] = grid[np.ix_(rows[down], columns[across])]
    return shown


def _unreadable(scored: ScoredSlide, size: tuple[int, int]) -> NDArray[np.bool_]:
    shown = np.zeros((size[1], size[0]), bool)
    scale = np.array(size) / scored.size_px
    for corner in scored.unreadable:
        left, top = np.floor(corner * scale).astype(int)
        right, bottom = np.ceil((np.array(corner) + scored.places.edge_px) * scale).astype(int)
        shown[top:bottom, left:right] = True
    return shown


def _outline(scored: ScoredSlide, tissue: Tissue | None, size: tuple[int, int]) -> NDArray[np.bool_]:
    if tissue is None:
        return np.zeros((size[1], size[0]), bool)
    # The mask may reach over the slide, and be coarser or finer than the picture.
    x, y = (
        np.minimum(((np.arange(n_px) + 0.5) * (n_full / n_px) / tissue.downsample).astype(np.int64), n_mask - 1)
        for n_px, n_full, n_mask in zip(size, scored.size_px, tissue.mask.shape[::-1], strict=True)
    )
    mask = tissue.mask[np.ix_(y, x)].astype(np.uint8)
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray((mask > 0) & (inner == 0))
