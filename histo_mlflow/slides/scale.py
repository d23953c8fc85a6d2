"""How wide a pixel is, from what files say of it; what can't be true of a microscope is not believed."""

import math
from pathlib import Path

from histo_mlflow.errors import UnreadableSlideError

FINEST, COARSEST = 0.02, 20.0
"""Micrometres per pixel of level 0. An oil lens of 100x has 0.1, a slide at 1.25x has 8; the 72 or 96 dots per inch that
programs write where they know nothing would be 353 and 265."""

_MOST_UNLIKE = 0.01
_MICRONS = {"inch": 25_400.0, "centimeter": 10_000.0, "millimeter": 1_000.0, "micrometer": 1.0}


def microns_from(width: object, height: object, path: Path) -> float | None:
    """Return the width of a pixel in micrometres, or None where the file does not state one that can be.

    Raises:
        UnreadableSlideError: Pixels are not square, by more than 1 %: a tile would show tissue that is pressed flat.
    """
    across, down = _number(width), _number(height)
    if across is None or down is None:
        return None
    if abs(across - down) > _MOST_UNLIKE * max(across, down):
        raise UnreadableSlideError(
            f"{path}: its pixels are not square ({across:g} by {down:g} micrometres); export it with square ones, or give its "
            "microns per pixel"
        )
    return plausible_microns(across)


def plausible_microns(value: object) -> float | None:
    """Return a number, or the number that a text is, if it can be micrometres per pixel of a slide; None if not."""
    microns = _number(value)
    return microns if microns is not None and FINEST <= microns <= COARSEST else None


def microns_of_resolution(pixels_per_unit: object, unit: str) -> float | None:
    """Return micrometres per pixel from pixels per inch, centimeter, millimeter or micrometer; None for another unit."""
    density = _number(pixels_per_unit)
    return None if density is None or unit not in _MICRONS else _MICRONS[unit] / density


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type] # whatever a file holds
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None
