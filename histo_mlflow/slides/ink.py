"""Pen marks on a slide, told from tissue by what they absorb; made for H&E."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_REACH_PX = 3
_THINNEST_PX = {"green": 2, "blue": 7, "red": 7, "black": 3}
"""Of a stroke on the overview. Nuclei that lie close are as blue as ink and blood is as red, but in spots; none is green."""
_BITS = {ink: np.uint8(1 << k) for k, ink in enumerate(_THINNEST_PX)}


def colours_of_ink(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return ``(height, width)``: a bit for each ink that has the colour of a pixel, for `find_ink`.

    Optical densities (Beer-Lambert: -ln of the light that passes) tell them apart however strong a stroke is. Both stains of
    H&E absorb green the most: haematoxylin has red 0.65, green 0.70, blue 0.29, eosin 0.07, 0.99, 0.11 (Ruifrok and
    Johnston 2001). Green ink absorbs it the least, blue ink absorbs red more than green, red ink blue nearly as much as green,
    black ink all alike.

    Args:
        picture: ``(height, width, 3)`` RGB from 0 to 255, in which glass is white.
    """
    red, green, blue = np.moveaxis(-np.log((picture + 1) / 256), 2, 0)
    strongest = np.maximum(np.maximum(red, green), blue)
    is_ink = {
        "green": (red > 1.25 * green) & (blue > 1.05 * green) & (strongest > 0.25),
        "blue": (red > 1.15 * green) & (blue < 0.9 * green) & (strongest > 0.3),
        "red": (blue > 0.8 * green) & (red < 0.42 * green) & (strongest > 0.4),
        "black": (np.minimum(np.minimum(red, green), blue) > 0.75 * strongest) & (strongest > 1.0),
    }
    bits: NDArray[np.uint8] = sum(each * _BITS[ink] for ink, each in is_ink.items())
    return bits


def find_ink(colours: NDArray[np.uint8], inks: Sequence[str]) -> NDArray[np.bool_]:
    """Return ``(height, width)`` bool: where strokes of some inks are on an overview of a slide; the others are tissue."""
    found = np.zeros(colours.shape, dtype=np.uint8)
    for ink in inks:
        stroke = np.ones((_THINNEST_PX[ink],) * 2, np.uint8)
        found |= cv2.morphologyEx(((colours & _BITS[ink]) > 0).astype(np.uint8), cv2.MORPH_OPEN, stroke).astype(np.uint8)
    return cv2.dilate(found, np.ones((2 * _REACH_PX + 1,) * 2, np.uint8)).astype(bool)
