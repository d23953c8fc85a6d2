"""Pen marks on a slide, told from tissue by what they absorb; made for H&E."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_REACH_PX = 3


def find_ink(picture: NDArray[np.uint8], inks: Sequence[str]) -> NDArray[np.bool_]:
    """Return ``(height, width)`` bool: where an overview of a slide shows ink of one of these colours.

    Optical densities (Beer-Lambert: -ln of the light that passes) tell them apart however strong a stroke is. Both stains of
    H&E absorb green the most: haematoxylin has red 0.65, green 0.70, blue 0.29, eosin 0.07, 0.99, 0.11 (Ruifrok and
    Johnston 2001). Green ink absorbs it the least, blue ink absorbs red more than green, red ink blue as much as green, black
    ink all alike.
    """
    red, green, blue = np.moveaxis(-np.log((picture.astype(np.float32) + 1) / 256), 2, 0)
    strongest = np.maximum(np.maximum(red, green), blue)
    is_ink = {
        "green": (red > 1.25 * green) & (blue > 1.05 * green) & (strongest > 0.25),
        "blue": (red > 1.5 * green) & (red > 0.6) & (blue < green),
        "red": (blue > 0.85 * green) & (red < 0.25 * green) & (green > 1.0),
        "black": (np.minimum(np.minimum(red, green), blue) > 0.75 * strongest) & (strongest > 1.0),
    }
    found = np.zeros(picture.shape[:2], dtype=np.uint8)
    for ink in inks:
        found |= is_ink[ink].astype(np.uint8)
    found = cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(np.uint8)
    return cv2.dilate(found, np.ones((2 * _REACH_PX + 1, 2 * _REACH_PX + 1), np.uint8)).astype(bool)
