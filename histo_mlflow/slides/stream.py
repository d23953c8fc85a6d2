"""Tiles of a slide as batches of pixels, read ahead by threads in bounded memory; knows nothing of models."""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import UnreadableSlideError
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.resampling import resampled
from histo_mlflow.slides.slide import Slide, coarsest_level

_MOST_PX_AT_ONCE = 4_000_000
_MOST_WASTE = 1.5  # pixels read for each that is needed, where tiles of a row do not touch

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class StreamOptions:
    """How tiles are read.

    Attributes:
        batch_size: Tiles in each batch but the last.
        workers: Threads that read ahead; decoders let go of Python's lock.
        ahead: Batches that may be ready before they are asked for, at most.
    """

    batch_size: int = 64
    workers: int = 2
    ahead: int = 4


def stream_tiles(
    slide: Slide,
    places: Places,
    size_px: int,
    options: StreamOptions = StreamOptions(),
    on_unreadable: Callable[[int, UnreadableSlideError], None] | None = None,
) -> Generator[tuple[NDArray[np.int64], Pixels], None, None]:
    """Yield the tiles in the order of `places`: their rows there, ``(n,)``, and RGB pixels ``(n, size_px, size_px, 3)``.

    Args:
        slide: It is read at the coarsest level that is as fine as the tiles are to be.
        places: Which tiles.
        size_px: To which edge tiles are brought.
        options: How they are read.
        on_unreadable: Told of the row of each tile that can't be decoded, which is then not yielded; the rest goes on. None:
            the first such tile ends it.

    Raises:
        UnreadableSlideError: A tile can't be decoded, and nobody is to be told.
    """
    batches = (np.arange(first, min(first + options.batch_size, len(places))) for first in _firsts(places, options))
    reader = _Reader(slide, places, size_px, coarsest_level(slide, places.edge_px / size_px))
    waiting: deque[tuple[NDArray[np.int64], Future[_Read]]] = deque()
    with ThreadPoolExecutor(options.workers, thread_name_prefix="tiles") as pool:
        try:
            for rows in batches:
                waiting.append((rows, pool.submit(reader.read, rows)))
                if len(waiting) > options.ahead:
                    yield from _give(*waiting.popleft(), on_unreadable)
            while waiting:
                yield from _give(*waiting.popleft(), on_unreadable)
        finally:
            for _, future in waiting:
                future.cancel()


@dataclass(frozen=True)
class _Read:
    pixels: Pixels
    faults: dict[int, UnreadableSlideError]


def _firsts(places: Places, options: StreamOptions) -> range:
    return range(0, len(places), options.batch_size)


def _give(
    rows: NDArray[np.int64], future: "Future[_Read]", on_unreadable: Callable[[int, UnreadableSlideError], None] | None
) -> Iterator[tuple[NDArray[np.int64], Pixels]]:
    read = future.result()
    for row, fault in read.faults.items():
        if on_unreadable is None:
            raise fault
        on_unreadable(row, fault)
    is_read = ~np.isin(rows, list(read.faults))
    if is_read.all():
        yield rows, read.pixels
    elif is_read.any():
        yield rows[is_read], read.pixels[is_read]


@dataclass(frozen=True)
class _Reader:
    slide: Slide
    places: Places
    size_px: int
    level: int

    def read(self, rows: NDArray[np.int64]) -> _Read:
        tiles = np.empty((len(rows), self.size_px, self.size_px, 3), dtype=np.uint8)
        faults: dict[int, UnreadableSlideError] = {}
        for run in self._runs(rows):
            try:
                tiles[run] = self._read_run(rows[run])
            except UnreadableSlideError:
                for each in range(run.start, run.stop):
                    try:
                        tiles[each : each + 1] = self._read_run(rows[each : each + 1])
                    except UnreadableSlideError as error:
                        faults[int(rows[each])] = error
        return _Read(tiles, faults)

    def _runs(self, rows: NDArray[np.int64]) -> Iterator[slice]:
        """Yield tiles that are worth being read at once: of one row of the grid, near to each other, not too many pixels."""
        edge = self.places.edge_px
        start = 0
        for each in range(1, len(rows) + 1):
            if each < len(rows) and self._go_together(int(rows[start]), int(rows[each]), (each - start + 1) * edge):
                continue
            yield slice(start, each)
            start = each

    def _go_together(self, first: int, last: int, needed_px: int) -> bool:
        places = self.places
        width = int(places.left[last] - places.left[first]) + places.edge_px
        return (
            places.top[first] == places.top[last]
            and 0 < width <= _MOST_WASTE * needed_px
            and width * places.edge_px <= _MOST_PX_AT_ONCE * self.slide.downsamples[self.level] ** 2
        )

    def _read_run(self, rows: NDArray[np.int64]) -> Pixels:
        downsample = self.slide.downsamples[self.level]
        edge = self.places.edge_px / downsample
        lefts, top = self.places.left[rows] / downsample, float(self.places.top[rows[0]]) / downsample
        first, above = math.floor(lefts[0]), math.floor(top)
        width, height = math.ceil(lefts[-1] + edge) - first, math.ceil(top + edge) - above
        strip = self.slide.read(self.level, first, above, width, height)
        boxes = ((float(left) - first, top - above, edge) for left in lefts)
        return np.stack([resampled(strip, box, self.size_px) for box in boxes])
