"""Tiles that lie in a mapped file, which notice when it is changed or cut short while they are in use."""

import hashlib
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import TileFormatError, TilesChangedError
from histo_mlflow.tiles.pixels import Pixels, parts_of

_BLOCK_TILES = 512
_N_SAMPLED = 32  # tiles that are compared at each check: some megabytes
_COARSEST_CLOCK_NS = 2 * 10**9  # of a file system (FAT); others count in milliseconds
_MEND = "put the tiles back and go on with --resume RUN_ID, or begin anew"


@dataclass(frozen=True)
class FileStamp:
    """What changes when a file is written: a copy may keep size and time of change, but not the other two."""

    n_bytes: int
    changed_ns: int
    status_changed_ns: int
    inode: int

    @classmethod
    def of(cls, file: Path) -> "FileStamp":
        """Return the present stamp of a file."""
        stat = file.stat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@dataclass(frozen=True)
class Checksum:
    """The CRC-32 that an archive holds of an array.

    Attributes:
        begun: Of what stands before the values.
        expected: Of that and the values.
        where: Names the array.
    """

    begun: int
    expected: int
    where: str

    def check(self, blocks: Iterable[memoryview]) -> None:
        """Raise `TileFormatError` unless the values, which come block by block, are what was saved."""
        found = self.begun
        for block in blocks:
            found = zlib.crc32(block, found)
        if found != self.expected:
            raise TileFormatError(f"{self.where} is damaged (bad CRC-32); copy or download it again")


class MappedTiles(np.memmap[Any, np.dtype[np.uint8]]):
    """A read-only map that is never read beyond the end of a file that was cut: that would end the process without a word.

    Attributes:
        origin: What the file was like when it was mapped.
    """

    origin: "Origin"

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        if isinstance(obj, MappedTiles):
            self.origin = obj.origin

    def __getitem__(self, key: Any) -> Any:
        self.origin.check_size()
        return np.asarray(super().__getitem__(key))


class Origin:
    """A file as it was just before it was mapped.

    Attributes:
        path: The file.
        stamp: Its size, times and inode.
        checksum: What the values can be compared with, or None.
        is_settled: Whether a later change shows in the times, however coarse the clock of the file system is.
    """

    def __init__(self, path: Path, stamp: FileStamp, images: NDArray[np.uint8], checksum: Checksum | None) -> None:
        self.path = path
        self.stamp = stamp
        self.checksum = checksum
        self.is_settled = time.time_ns() - max(stamp.changed_ns, stamp.status_changed_ns) > _COARSEST_CLOCK_NS
        self._map: Any = images._mmap  # type: ignore[attr-defined]
        self._n_bytes = self._map.size()
        self._sample = _sample(images)

    def check_size(self) -> None:
        """Raise `TilesChangedError` if the file has become shorter."""
        if self._map.size() < self._n_bytes:
            raise TilesChangedError(f"{self.path} was cut short while it was in use; {_MEND}")

    def check(self, images: NDArray[np.uint8]) -> None:
        """Raise `TilesChangedError` if size, time or some tiles are not what they were."""
        self.check_size()
        if self._is_touched() or _sample(images) != self._sample:
            raise TilesChangedError(f"{self.path} was changed while it was in use; {_MEND}")

    def _is_touched(self) -> bool:
        try:
            now = FileStamp.of(self.path)
        except OSError:
            return False
        # A file that has taken its place is not what is mapped.
        is_same = now.inode == self.stamp.inode
        return is_same and (now.n_bytes, now.changed_ns) != (self.stamp.n_bytes, self.stamp.changed_ns)


def map_tiles(path: Path, open_map: Callable[[], NDArray[np.uint8]], checksum: Checksum | None = None) -> NDArray[np.uint8]:
    """Return what `open_map` maps of the file at `path`, as tiles that notice changes of it."""
    stamp = FileStamp.of(path)
    images = open_map()
    tiles = images.view(MappedTiles)
    tiles.origin = Origin(path.resolve(), stamp, images, checksum)
    return tiles


def check_unchanged(images: Pixels) -> None:
    """Compare size and time of the files, and some tiles, with those at the beginning; does nothing for tiles in memory.

    Raises:
        TilesChangedError: They differ.
    """
    for part in parts_of(images):
        if isinstance(part, MappedTiles):
            part.origin.check(part)


def _sample(images: NDArray[np.uint8]) -> bytes:
    rows = np.unique(np.linspace(0, len(images) - 1, _N_SAMPLED).astype(np.int64))
    return hashlib.sha256(np.ascontiguousarray(images[rows]).data).digest()


def verify_checksum(images: NDArray[np.uint8]) -> None:
    """Read all tiles, if the archive that they lie in holds a checksum of them; raises `TileFormatError` if it is another."""
    if isinstance(images, MappedTiles) and images.origin.checksum is not None:
        starts = range(0, len(images), _BLOCK_TILES)
        images.origin.checksum.check(images[start : start + _BLOCK_TILES].data for start in starts)
