"""A whole slide as one small picture, in bounded memory whatever its size."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from histo_mlflow.slides.slide import Slide, coarsest_level

_MOST_PX = 4_000_000  # more than a screen shows, and on the largest slides a tile is still seven of them wide
_STRIP_PX = 2_000_000
_NEARLY = 1.1


def overview_downsample(slide: Slide, downsample: float = 16.0) -> float:
    """Return `downsample`, or more: as much as a level has that is nearly as coarse, or for 4 million pixels."""
    width, height = slide.size_px
    wanted = max(downsample, (width * height / _MOST_PX) ** 0.5, 1.0)
    nearest = slide.downsamples[coarsest_level(slide, wanted * _NEARLY)]
    return nearest if nearest * _NEARLY > wanted else wanted


def read_overview(slide: Slide, downsample: float = 16.0) -> tuple[NDArray[np.uint8], float]:
    """Return ``(height, width, 3)`` RGB of a slide and its downsample (`overview_downsample`).

    Every pixel is the mean of what it covers; the last row and column are filled up with white.

    Raises:
        UnreadableSlideError: The slide can't be read.
    """
    downsample = overview_downsample(slide, downsample)
    level = coarsest_level(slide, downsample)
    factor = downsample / slide.downsamples[level]
    size = (int(np.ceil(slide.size_px[0] / downsample)), int(np.ceil(slide.size_px[1] / downsample)))
    picture = np.empty((size[1], size[0], 3), dtype=np.uint8)
    n_rows = max(1, int(_STRIP_PX / (size[0] * factor**2)))
    for first in range(0, size[1], n_rows):
        last = min(first + n_rows, size[1])
        picture[first:last] = _read_strip(slide, level, factor, (size[0], first, last))
    return picture, downsample


def _read_strip(slide: Slide, level: int, factor: float, part: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return the rows from `first` to before `last` of the picture: ``part = (width, first, last)``."""
    width, first, last = part
    if factor == 1.0:
        return slide.read(level, 0, first, width, last - first)
    top, bottom, right = int(first * factor), int(np.ceil(last * factor)), int(np.ceil(width * factor))
    pixels = Image.fromarray(slide.read(level, 0, top, right, bottom - top))
    box = (0.0, first * factor - top, width * factor, last * factor - top)
    return np.asarray(pixels.resize((width, last - first), Image.Resampling.BOX, box=box))
