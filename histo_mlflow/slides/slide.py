"""What a slide is to everything that reads one, whatever its file."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

WHITE = 255
"""What stands where nothing was scanned: glass, not black."""


class Slide(Protocol):
    """A scanned slide: the same picture at several resolutions, the finest first. Safe to read from several threads.

    Attributes:
        path: Its file; a folder, of a slide that is a folder of DICOM files.
        size_px: Width and height of level 0.
        downsamples: How many pixels of level 0 make one of each level, from the levels' widths; 1.0 first. Not truncated.
        microns_per_pixel: Width of a pixel of level 0; None where neither the file nor the user says it. Never assumed.
    """

    @property
    def path(self) -> Path: ...  # noqa: D102 - said above

    @property
    def size_px(self) -> tuple[int, int]: ...  # noqa: D102

    @property
    def downsamples(self) -> tuple[float, ...]: ...  # noqa: D102

    @property
    def microns_per_pixel(self) -> float | None: ...  # noqa: D102

    def read(self, level: int, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return ``(height, width, 3)`` RGB of a rectangle in pixels of `level`; white outside and where nothing was scanned.

        Raises:
            UnreadableSlideError: The file does not hold what it says it holds.
        """

    def close(self) -> None:
        """Let go of the file; to be called when nothing reads any more."""


def coarsest_level(slide: Slide, downsample: float) -> int:
    """Return the coarsest level that is at least as fine as `downsample` (1 % coarser is as fine), or level 0.

    Widths of levels are rounded to pixels: a fourth of 15,871 is 3,967, which is 1 / 4.0008.
    """
    return max((level for level, each in enumerate(slide.downsamples) if each <= downsample * 1.01), default=0)


def read_inside(
    size_px: tuple[int, int], box: tuple[int, int, int, int], read: Callable[[int, int, int, int], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Return what `read` gives for the part of a box (left, top, width, height) that lies on a level, on a white canvas."""
    left, top, width, height = box
    first_x, first_y = max(left, 0), max(top, 0)
    n_x, n_y = min(left + width, size_px[0]) - first_x, min(top + height, size_px[1]) - first_y
    if (n_x, n_y) == (width, height):
        return read(left, top, width, height)
    canvas = np.full((height, width, 3), WHITE, dtype=np.uint8)
    if n_x > 0 and n_y > 0:
        canvas[first_y - top : first_y - top + n_y, first_x - left : first_x - left + n_x] = read(first_x, first_y, n_x, n_y)
    return canvas


def on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``(height, width, 3)`` RGB of RGBA, of straight alpha, over white: glass, where nothing was scanned."""
    if cv2.extractChannel(rgba, 3).min() == 255:  # ten times as fast as numpy, which walks over pixels of 4 bytes
        return cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB).astype(np.uint8, copy=False)
    opaque = rgba[..., 3:].astype(np.uint16)
    blended: NDArray[np.uint8] = ((rgba[..., :3] * opaque + WHITE * (255 - opaque) + 127) // 255).astype(np.uint8)
    return blended
