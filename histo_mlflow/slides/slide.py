"""What a slide is to everything that reads one, whatever its file."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Slide(Protocol):
    """A scanned slide: the same picture at several resolutions, the finest first. Safe to read from several threads.

    Attributes:
        path: Its file.
        size_px: Width and height of level 0.
        downsamples: How many pixels of level 0 make one of each level, from the levels' widths; 1.0 first. Not truncated.
        microns_per_pixel: Width of a pixel of level 0; None where neither the file nor the user says it. Never assumed.
    """

    path: Path
    size_px: tuple[int, int]
    downsamples: tuple[float, ...]
    microns_per_pixel: float | None

    def read(self, level: int, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return ``(height, width, 3)`` RGB of a rectangle in pixels of `level`; white outside and where nothing was scanned.

        Raises:
            UnreadableSlideError: The file does not hold what it says it holds.
        """

    def close(self) -> None:
        """Let go of the file."""
