"""Slides that OpenSlide reads: SVS, NDPI, MRXS, SCN, BIF, CZI, generic TIFF."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.errors import UnreadableSlideError
from histo_mlflow.slides.scale import microns_from, microns_of_resolution
from histo_mlflow.slides.slide import on_white, read_inside


@dataclass(eq=False)
class OpenSlideSlide:
    """A slide in a file of a scanner's maker; see `Slide`."""

    path: Path
    size_px: tuple[int, int]
    downsamples: tuple[float, ...]
    microns_per_pixel: float | None
    _file: Path
    _levels_px: tuple[tuple[int, int], ...] = field(repr=False)
    _handle: openslide.OpenSlide = field(repr=False)

    def read(self, level: int, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        """See `Slide.read`."""
        return read_inside(self._levels_px[level], (left, top, width, height), lambda *box: self._read_inside(level, *box))

    def _read_inside(self, level: int, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        try:
            return _region(self._handle, level, left, top, width, height)
        except openslide.OpenSlideError:
            # After an error OpenSlide refuses all else of that handle, and it may have been another thread's.
            pass
        try:
            own = openslide.OpenSlide(self._file)
            pixels = _region(own, level, left, top, width, height)
        except openslide.OpenSlideError as error:
            self._handle = openslide.OpenSlide(self._file)
            raise UnreadableSlideError(
                f"{self.path}: {width} x {height} pixels at {left}, {top} of level {level} can't be read ({reason_of(error)})"
            ) from None
        self._handle = own
        return pixels

    def close(self) -> None:
        """See `Slide.close`."""
        self._handle.close()


def detect_maker(path: Path) -> str | None:
    """Return OpenSlide's word for the kind of a file, or None if it does not know it."""
    try:
        return openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError:
        return None


def open_openslide(path: Path, microns_per_pixel: float | None) -> OpenSlideSlide:
    """Open a file; a given scale goes before the file's.

    Raises:
        UnreadableSlideError: OpenSlide can't open it, or its pixels are not square.
    """
    try:
        handle = openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        raise UnreadableSlideError(f"{path} is not a slide of a known kind; export it as SVS, OME-TIFF or DICOM") from None
    except openslide.OpenSlideError as error:
        raise UnreadableSlideError(f"{path} can't be opened as a slide ({reason_of(error)}); copy it again whole") from None
    width, height = handle.dimensions
    return OpenSlideSlide(
        path,
        (width, height),
        tuple(width / level_width for level_width, _ in handle.level_dimensions),
        microns_per_pixel or _microns_of(handle, path),
        path,
        handle.level_dimensions,
        handle,
    )


def _microns_of(handle: openslide.OpenSlide, path: Path) -> float | None:
    facts = handle.properties
    width, height = facts.get(openslide.PROPERTY_NAME_MPP_X), facts.get(openslide.PROPERTY_NAME_MPP_Y)
    if width is not None or height is not None:
        return microns_from(width, height, path)
    unit = facts.get("tiff.ResolutionUnit", "")
    across, down = (microns_of_resolution(facts.get(f"tiff.{axis}Resolution"), unit) for axis in "XY")
    return microns_from(across, down, path)


def _region(handle: openslide.OpenSlide, level: int, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
    downsample = handle.level_downsamples[level]
    at = (round(left * downsample), round(top * downsample))
    return on_white(np.asarray(handle.read_region(at, level, (width, height))))
