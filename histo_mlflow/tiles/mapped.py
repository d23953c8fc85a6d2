"""Tiles that lie in a mapped file, which notice when it is changed or cut short while they are in use."""

import hashlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import TilesChangedError

_N_SAMPLED = 32  # tiles that are compared at each check: some megabytes


class MappedTiles(np.memmap[Any, np.dtype[np.uint8]]):
    """A read-only map that is never read beyond the end of a file that was cut: that would end the process without a word."""

    _watched: "_Watched | None" = None

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        self._watched = getattr(obj, "_watched", None)

    def __getitem__(self, key: Any) -> Any:
        if self._watched is not None:
            self._watched.check_size()
        return np.asarray(super().__getitem__(key))


class _Watched:
    """What the file was like when it was mapped."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._map: Any = images._mmap  # type: ignore[attr-defined]
        self._path = str(images.filename)  # type: ignore[attr-defined]
        self._n_bytes = self._map.size()
        self._stamp = self._read_stamp()
        self._sample = _sample(images)

    def check_size(self) -> None:
        if self._map.size() < self._n_bytes:
            raise TilesChangedError(f"{self._path} was cut short while it was in use; {_MEND}")

    def check(self, images: NDArray[np.uint8]) -> None:
        self.check_size()
        # A file that has taken its place is not what is mapped.
        stamp = self._read_stamp()
        is_touched = stamp[0] == self._stamp[0] and stamp != self._stamp
        if is_touched or _sample(images) != self._sample:
            raise TilesChangedError(f"{self._path} was changed while it was in use; {_MEND}")

    def _read_stamp(self) -> tuple[int, int, int]:
        try:
            stat = os.stat(self._path)  # noqa: PTH116 - a path of another's type
        except OSError:
            return (0, 0, 0)
        return stat.st_ino, stat.st_size, stat.st_mtime_ns


_MEND = "put the tiles back and go on with --resume RUN_ID, or begin anew"


def watched(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a memory map as one that notices changes of its file."""
    tiles = images.view(MappedTiles)
    tiles._watched = _Watched(images)
    return tiles


def check_unchanged(images: NDArray[np.uint8]) -> None:
    """Compare size and time of the file, and some tiles, with those at the beginning; does nothing for tiles in memory.

    Raises:
        TilesChangedError: They differ.
    """
    if isinstance(images, MappedTiles) and images._watched is not None:
        images._watched.check(images)


def _sample(images: NDArray[np.uint8]) -> bytes:
    rows = np.unique(np.linspace(0, len(images) - 1, _N_SAMPLED).astype(np.int64))
    return hashlib.sha256(np.ascontiguousarray(images[rows]).data).digest()
