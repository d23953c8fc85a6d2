"""How the pictures of a TIFF file are laid out in it, and which of them are the levels of a slide; reads no file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG

from histo_mlflow.errors import UnreadableSlideError
from histo_mlflow.slides.slide import WHITE, on_white

_LARGEST_SEGMENT_PX = 2**26
_COLOURS = (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR)
_RGB_AXES = ("YXS", "SYX")
_OF_OPENSLIDE = (COMPRESSION.APERIO_JP2000_YCBC, COMPRESSION.APERIO_JP2000_RGB)

Pixels = NDArray[np.uint8]


class UnsuitedTiffError(Exception):
    """A TIFF file whose layout only OpenSlide may know; never seen by users."""


@dataclass(frozen=True, eq=False)
class Level:
    """A resolution of a slide: `segment_px` are height and width of the tiles or strips of which its page consists."""

    page: tifffile.TiffPage
    size_px: tuple[int, int]
    segment_px: tuple[int, int]
    n_columns: int
    n_segments: int
    is_planar: bool

    def covering(self, left: int, top: int, width: int, height: int) -> list[tuple[int, int]]:
        """Return rows and columns of the segments that a rectangle touches."""
        down, across = self.segment_px
        rows, columns = range(top // down, -(-(top + height) // down)), range(left // across, -(-(left + width) // across))
        return [(row, column) for row in rows for column in columns]

    def indices(self, row: int, column: int) -> list[int]:
        """Return the numbers of a segment in the file: one, or one for each colour."""
        first = row * self.n_columns + column
        return [first + plane * self.n_segments for plane in range(3)] if self.is_planar else [first]

    def decode(self, encoded: Sequence[tuple[bytes | None, int]], at: tuple[int, int]) -> Pixels:
        """Return ``(height, width, 3)`` of a segment."""
        planes = [self._decode_one(data, index, at) for data, index in encoded]
        segment = np.concatenate(planes, axis=2) if len(planes) > 1 else planes[0]
        return on_white(segment) if segment.shape[2] == 4 else segment

    def _decode_one(self, data: bytes | None, index: int, at: tuple[int, int]) -> Pixels:
        height, width = (
            min(edge, size - k * edge) for edge, size, k in zip(self.segment_px, self.size_px[::-1], at, strict=True)
        )
        if not self.page.databytecounts[index]:
            return np.full((height, width, 1 if self.is_planar else 3), WHITE, dtype=np.uint8)
        if data is None or len(data) < self.page.databytecounts[index]:
            raise ValueError("the file ends before")
        segment, _, _ = self.page.decode(data, index, jpegtables=self.page.jpegtables)
        if segment is None or segment.shape[1] < height or segment.shape[2] < width:
            raise ValueError("a tile is smaller than it says")
        pixels: Pixels = segment[0, :height, :width]
        return pixels


def levels_of(file: tifffile.TiffFile) -> list[Level]:
    """Return the levels of the largest picture in RGB of 8 bits, the finest first.

    Raises:
        UnreadableSlideError: There is none.
        UnsuitedTiffError: It is laid out in a way that is not known here.
    """
    fit = [series for series in file.series if series.axes in _RGB_AXES and series.dtype == np.uint8]
    if not fit:
        raise UnreadableSlideError(
            f"{file.filehandle.path} holds no picture in RGB of 8 bits, colours beside each other; export a stained slide so"
        )
    series = max(fit, key=lambda one: one.size)
    pages = [level.keyframe for level in series.levels]
    if not all(len(level.pages) == 1 for level in series.levels):
        raise UnsuitedTiffError("its colours lie in pages of their own")
    levels = [_level_of(page) for page in pages]
    if file.is_svs and any(not count for level in levels for count in level.page.databytecounts):
        raise UnsuitedTiffError("OpenSlide fills what is missing in SVS from other levels")
    return levels


def _level_of(page: tifffile.TiffPage) -> Level:
    is_planar = page.planarconfig == PLANARCONFIG.SEPARATE
    if page.photometric not in _COLOURS or page.samplesperpixel not in {3, 4} or page.compression in _OF_OPENSLIDE:
        raise UnsuitedTiffError(f"its pixels are {PHOTOMETRIC(page.photometric).name}, {COMPRESSION(page.compression).name}")
    if is_planar and page.samplesperpixel != 3:
        raise UnsuitedTiffError("it holds more than three colours")
    width, height = page.imagewidth, page.imagelength
    across, down = (page.tilewidth, page.tilelength) if page.is_tiled else (width, page.rowsperstrip)
    if across * down > _LARGEST_SEGMENT_PX:
        raise UnsuitedTiffError(f"its blocks have {across} x {down} px; export it in tiles of 256 or 512 px")
    n_columns, n_rows = -(-width // across), -(-height // down)
    return Level(page, (width, height), (down, across), n_columns, n_columns * n_rows, is_planar)
