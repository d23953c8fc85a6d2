"""Where on a slide there is tissue: the mask, what share of a tile it covers, and how it is found."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from histo_mlflow.slides.ink import colours_of_ink, find_ink
from histo_mlflow.slides.options import TissueOptions
from histo_mlflow.slides.overview import read_overview
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.slide import Slide

_UM2_OF_A_PX = 64.0
"""Where no scale is known, limits in um2 are taken as if a pixel of the mask were 8 um wide, as at 20x."""
_DARKEST_GLASS = 200  # of 255, in any colour; what is darker is tissue that fills the slide
_ROWS_AT_ONCE = 64

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Tissue:
    """A mask over a whole slide.

    Attributes:
        mask: ``(height, width)`` bool: true where there is tissue. Its last row and column may reach over the slide.
        downsample: Pixels of level 0 that make one of the mask; need not be whole.
    """

    mask: Mask
    downsample: float

    def share_of(self, places: Places) -> NDArray[np.float64]:
        """Return the share of each tile that is tissue, ``(n_tiles,)``; what lies beyond the mask is none.

        Exact, whatever the downsample: the sum over a rectangle of a picture of flat pixels is bilinear between the corners of
        pixels of its summed-area table (Crow 1984).
        """
        right, bottom = places.left + places.edge_px, places.top + places.edge_px
        inside = (
            self._sum_to(right, bottom)
            - self._sum_to(places.left, bottom)
            - self._sum_to(right, places.top)
            + self._sum_to(places.left, places.top)
        )
        return np.clip(inside * (self.downsample / places.edge_px) ** 2, 0.0, 1.0)

    def area_mm2(self, microns_per_pixel: float) -> float:
        """Return the area of the tissue, with the width of a pixel of level 0."""
        return float(self.mask.sum()) * (self.downsample * microns_per_pixel / 1000) ** 2

    @cached_property
    def _summed(self) -> NDArray[np.int32]:
        """``(height + 1, width + 1)``: how many pixels above and to the left of each corner are tissue."""
        return cv2.integral(self.mask.view(np.uint8)).astype(np.int32, copy=False)

    def _sum_to(self, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.float64]:
        column, part_x = _corner(x / self.downsample, self.mask.shape[1])
        row, part_y = _corner(y / self.downsample, self.mask.shape[0])
        top = self._summed[row, column] * (1 - part_x) + self._summed[row, column + 1] * part_x
        bottom = self._summed[row + 1, column] * (1 - part_x) + self._summed[row + 1, column + 1] * part_x
        sums: NDArray[np.float64] = top * (1 - part_y) + bottom * part_y
        return sums


def find_tissue(slide: Slide, options: TissueOptions) -> Tissue:
    """Return where a slide is coloured and not inked, found on its picture at 1/16 or coarser; an empty mask, if nowhere.

    The threshold on the saturation, against the colour of the glass, is Otsu's (1979) within the limits of the options.

    Raises:
        UnreadableSlideError: The slide can't be read.
    """
    picture, downsample = read_overview(slide)
    # Smoothed by a pixel it has a fourth of the noise of colour, by which glass seems to be as coloured as pale tissue.
    saturation, ink = _saturation_and_ink(cv2.GaussianBlur(picture, (0, 0), 1).astype(np.uint8, copy=False), options.inks)
    saturation[ink] = 0
    threshold = _threshold(saturation[~ink], options)
    found = saturation >= threshold
    found = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_CLOSE, _disk(2)).astype(bool) & ~ink
    px_um2 = _UM2_OF_A_PX if slide.microns_per_pixel is None else (downsample * slide.microns_per_pixel) ** 2
    found = ~_without_small(~found, options.largest_hole_um2 / px_um2) & ~ink
    return Tissue(_without_small(found, options.smallest_tissue_um2 / px_um2), downsample)


def _saturation_and_ink(picture: NDArray[np.uint8], inks: Sequence[str]) -> tuple[NDArray[np.uint8], Mask]:
    """Return both, ``(height, width)``, of a picture, which as floats would take many times its memory: row by row."""
    glass = _glass_of(picture)
    saturation, colours = (np.empty(picture.shape[:2], np.uint8) for _ in range(2))
    for first in range(0, len(picture), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        balanced = picture[rows].astype(np.float32) if glass is None else np.minimum(picture[rows] * (255.0 / glass), 255.0)
        saturation[rows] = _saturation(balanced)
        colours[rows] = colours_of_ink(balanced)
    return saturation, find_ink(colours, inks)


def _glass_of(picture: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Return the colour of the glass: the median of the brightest tenth of a picture, if that is bright."""
    darkest = picture.min(axis=2)
    glass: NDArray[np.float32] = np.median(picture[darkest >= np.percentile(darkest, 90)], axis=0).astype(np.float32)
    return glass if glass.min() >= _DARKEST_GLASS else None


def _saturation(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return ``(height, width)``: the saturation of HSV, in 255ths."""
    most = picture.max(axis=2)
    saturation: NDArray[np.uint8] = ((most - picture.min(axis=2)) / np.maximum(most, 1.0) * 255.0).astype(np.uint8)
    return saturation


def _threshold(saturation: NDArray[np.uint8], options: TissueOptions) -> float:
    if not len(saturation):
        return 255.0
    otsu, _ = cv2.threshold(saturation.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return float(np.clip(otsu, options.least_saturation * 255, options.most_saturation * 255))


def _without_small(mask: Mask, least_px: float) -> Mask:
    """Return a mask without its pieces of fewer pixels (neighbours touch by an edge or a corner)."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    is_kept = stats[:, cv2.CC_STAT_AREA] >= least_px
    is_kept[0] = False
    kept: Mask = is_kept[labels]
    return kept


def _disk(radius: int) -> NDArray[np.uint8]:
    disk: NDArray[np.uint8] = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)).astype(np.uint8)
    return disk


def _corner(at: NDArray[np.float64], length: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the corner of pixels at or before each place along an axis, with the share of the pixel behind it."""
    inside = np.clip(at, 0, length)
    corner = np.minimum(inside.astype(np.int64), length - 1)
    return corner, inside - corner
