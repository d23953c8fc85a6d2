"""Arrays in an ``.npz`` file: their form from the header alone, their values mapped, unpacked or read; nothing is unpickled.

Knows nothing of what the arrays mean.
"""

import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.base.progress import Bar
from histo_mlflow.errors import TileFormatError
from histo_mlflow.tiles.cache import About, cache_key, unpacked_once
from histo_mlflow.tiles.mapped import Checksum, FileStamp, map_tiles

_COPY_BLOCK_BYTES = 16 * 2**20
# A zip member's local header: how long its fixed part is, and where in it the lengths of its name and extra field stand
# (APPNOTE.TXT 4.3.7).
_LOCAL_HEADER_BYTES, _LENGTHS_AT = 30, 26
# What zipfile, its decompressors and numpy's parser of headers raise for bytes that are not as they should be.
_DAMAGE = (
    ValueError, TypeError, SyntaxError, RuntimeError, MemoryError, EOFError, OSError, OverflowError,
    zlib.error, zipfile.BadZipFile, lzma.LZMAError, tokenize.TokenError,
)  # fmt: skip


class Archive(zipfile.ZipFile):
    """An ``.npz`` file that is open; making one raises `TileFormatError` if the file is none, or not whole.

    Attributes:
        path: The file.
        stamp: What the file was like before it was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp = FileStamp.of(path)
        try:
            super().__init__(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError):
            with path.open("rb") as file:
                begins_as_zip = file.read(4) == b"PK\x03\x04"
            if begins_as_zip:
                raise TileFormatError(f"{path} is truncated: its end is missing; copy or download it again") from None
            raise TileFormatError(
                f"{path} is not an npz file; save tiles with numpy.savez(path, data=..., labels=...)"
            ) from None

    @property
    def keys(self) -> list[str]:
        """Names of the arrays, sorted."""
        return sorted(name.removesuffix(".npy") for name in self.namelist() if name.endswith(".npy"))

    @contextmanager
    def reading(self, key: str, fault: str) -> Iterator[IO[bytes]]:
        """Open an array's bytes; what is wrong with them while they are read is a `TileFormatError` with `fault` in it."""
        try:
            with self.open(f"{key}.npy") as member:
                yield member
        except _DAMAGE as error:
            raise TileFormatError(f"{self.path}[{key}] {fault} ({reason_of(error)}); copy or save it again") from None

    def find(self, key: str) -> "Member":
        """Return an array; raises `TileFormatError` if it is none, holds objects, or is not as long as it says."""
        with self.reading(key, "is not a numpy array that can be read") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, is_fortran, dtype = read(file)
            found = Member(self, key, shape, is_fortran, dtype, header_bytes=file.tell())
        if dtype.hasobject:
            raise TileFormatError(
                f"{found.where} is an object array, which could run code when read and is refused; "
                "save tiles as one uint8 array, labels as integers, names and groups as text (.astype(str))"
            )
        if min(shape, default=0) < 0:
            raise TileFormatError(f"{found.where} has the impossible shape {shape}; save it again with numpy.savez")
        if found.header_bytes + math.prod(shape) * dtype.itemsize != self.getinfo(f"{key}.npy").file_size:
            raise TileFormatError(
                f"{found.where} is truncated or damaged: not as long as its shape {shape} says; save it again"
            )
        return found


@dataclass(frozen=True)
class Member:
    """An array in an archive, of which no more than the header has been read.

    Attributes:
        archive: Holds it.
        key: Its name there.
        is_fortran: Whether its first axis varies fastest.
        header_bytes: Length of what stands before the values.
    """

    archive: Archive
    key: str
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    header_bytes: int

    @property
    def where(self) -> str:
        """File and name, for people."""
        return f"{self.archive.path}[{self.key}]"

    def read(self) -> NDArray[Any]:
        """Return the values; whoever asks has found the shape small enough."""
        with self.archive.reading(self.key, "is damaged") as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))

    def row_blocks(self, n_rows: int) -> Iterator[NDArray[Any]]:
        """Yield the values, `n_rows` of the first axis at a time."""
        if self.is_fortran:
            yield self.read()
            return
        of_row = self.dtype.itemsize * math.prod(self.shape[1:])
        with self.archive.reading(self.key, "is damaged") as file:
            file.read(self.header_bytes)
            for _ in range(0, self.shape[0], n_rows):
                yield np.frombuffer(file.read(n_rows * of_row), self.dtype).reshape(-1, *self.shape[1:])

    def map(self) -> NDArray[np.uint8]:
        """Return an array of uint8 mapped where it lies, or, if it is compressed or in another order, unpacked to the cache."""
        archive, info = self.archive, self.archive.getinfo(f"{self.key}.npy")
        if info.compress_type != zipfile.ZIP_STORED or self.is_fortran:
            key = cache_key(archive.path.resolve(), archive.stamp, self.key)
            return unpacked_once(key, self._unpack, About("tiles", self.where))
        with archive.reading(self.key, "is damaged"):
            lengths = np.fromfile(archive.path, "<u2", 2, offset=info.header_offset + _LENGTHS_AT)
            start = info.header_offset + _LOCAL_HEADER_BYTES + int(lengths.sum())
            header = np.fromfile(archive.path, np.uint8, self.header_bytes, offset=start)
            return map_tiles(
                archive.path,
                lambda: np.memmap(archive.path, np.uint8, "r", start + self.header_bytes, self.shape),
                Checksum(zlib.crc32(header.data), info.CRC, self.where),
            )

    def _unpack(self, target: Path) -> None:
        if self.is_fortran:
            np.save(target, np.ascontiguousarray(self.read()))
            return
        size, title = math.prod(self.shape), f"unpack {self.archive.path.name}"
        with (
            target.open("wb") as file,
            Bar[None](total=size, unit="B", unit_scale=True, desc=title) as bar,
        ):
            for block in self._blocks():
                bar.update(file.write(block))

    def _blocks(self) -> Iterator[bytes]:
        with self.archive.reading(self.key, "is damaged") as file:
            while block := file.read(_COPY_BLOCK_BYTES):
                yield block
