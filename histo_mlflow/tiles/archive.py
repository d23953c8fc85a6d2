"""Members of an ``.npz`` archive: their form from the header alone, their values mapped, copied or read; nothing is unpickled.

Knows nothing of what the arrays mean.
"""

import lzma
import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.errors import TileFormatError
from histo_mlflow.tiles.cache import create_array
from histo_mlflow.tiles.mapped import map_tiles

_COPY_BLOCK_BYTES = 16 * 2**20
_CHECK_BLOCK_TILES = 512
_LOCAL_HEADER_BYTES = 30  # fixed part of a zip member's local header (APPNOTE.TXT 4.3.7)
# What zipfile, its decompressors and numpy's parser of headers raise for bytes that are not as they should be.
_DAMAGE = (
    ValueError, TypeError, SyntaxError, RecursionError, MemoryError, EOFError, OSError, OverflowError, NotImplementedError,
    zlib.error, zipfile.BadZipFile, lzma.LZMAError, tokenize.TokenError,
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """The form of one array in the archive, read without reading the array."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]

    @property
    def n_bytes(self) -> int:
        """Of the values alone."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_archive(path: Path) -> zipfile.ZipFile:
    """Return the archive; raises `TileFormatError` if it is none, or not whole."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        with path.open("rb") as file:
            begins_as_zip = file.read(4) == b"PK\x03\x04"
        if begins_as_zip:
            raise TileFormatError(f"{path} is truncated: its end is missing; copy or download it again") from None
        raise TileFormatError(f"{path} is not an npz file; save tiles with numpy.savez(path, data=..., labels=...)") from None


def read_header(archive: zipfile.ZipFile, key: str, path: Path) -> Header:
    """Return the form of an array; raises `TileFormatError` if it is none, holds objects, or is shorter than it says."""
    with _open_member(archive, key, path) as member:
        header = _parse_header(member, key, path)
    if header.n_bytes > archive.getinfo(f"{key}.npy").file_size:
        raise TileFormatError(f"{path}[{key}] is truncated: shorter than its shape {header.shape} says; copy or save it again")
    return header


def _open_member(archive: zipfile.ZipFile, key: str, path: Path) -> IO[bytes]:
    try:
        return archive.open(f"{key}.npy")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise TileFormatError(f"{path}[{key}] can't be read ({reason_of(error)}); copy or save it again") from None


def _parse_header(member: IO[bytes], key: str, path: Path) -> Header:
    try:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(member)
    except _DAMAGE as error:
        raise TileFormatError(
            f"{path}[{key}] is not a numpy array ({reason_of(error)}); save it again with numpy.savez"
        ) from None
    if dtype.hasobject:
        raise TileFormatError(
            f"{path}[{key}] is an object array, which could run code when read and is refused; "
            "save tiles as one uint8 array, labels as integers, names and groups as text (.astype(str))"
        )
    if min(shape, default=0) < 0:
        raise TileFormatError(f"{path}[{key}] has the impossible shape {shape}; save it again with numpy.savez")
    return Header(shape, is_fortran, dtype)


def read_array(archive: zipfile.ZipFile, key: str, path: Path) -> NDArray[Any]:
    """Return an array whose header was found to be in order, and so its size."""
    try:
        with _open_member(archive, key, path) as member:
            return np.asarray(np.lib.format.read_array(member, allow_pickle=False))
    except _DAMAGE as error:
        raise TileFormatError(f"{path}[{key}] is damaged ({reason_of(error)}); copy or download it again") from None


class CrcCheck:
    """Takes the values of an array block by block, in order, and says at the end whether they are what was saved."""

    def __init__(self, begun: int, expected: int, where: str) -> None:
        self._crc = begun
        self._expected = expected
        self._where = where

    def take(self, block: memoryview) -> None:
        """Go on by one block."""
        self._crc = zlib.crc32(block, self._crc)

    def finish(self) -> None:
        """Raise `TileFormatError` unless all blocks together have the CRC-32 of the archive."""
        if self._crc != self._expected:
            raise TileFormatError(f"{self._where} is damaged (bad CRC-32); copy or download it again")


@dataclass(frozen=True, eq=False)
class Pixels:
    """A read-only map of an array, and what has not been read yet.

    Attributes:
        images: ``(n_tiles, size, size, 3)`` uint8.
        check: Compares it with the CRC-32 that the archive holds; None if that was done when it was unpacked.
    """

    images: NDArray[np.uint8]
    check: CrcCheck | None = None

    def verify(self) -> None:
        """Read everything and compare it; raises `TileFormatError`."""
        if self.check is not None:
            for start in range(0, len(self.images), _CHECK_BLOCK_TILES):
                self.check.take(self.images[start : start + _CHECK_BLOCK_TILES].data)
            self.check.finish()


def map_if_stored(archive: zipfile.ZipFile, key: str, header: Header, path: Path) -> Pixels | None:
    """Return an array of uint8 where it lies, or None if it is compressed or in another order."""
    info = archive.getinfo(f"{key}.npy")
    if info.compress_type != zipfile.ZIP_STORED or header.is_fortran:
        return None
    with path.open("rb") as file:
        file.seek(info.header_offset)
        local = file.read(_LOCAL_HEADER_BYTES)
        name_bytes, extra_bytes = int.from_bytes(local[26:28], "little"), int.from_bytes(local[28:30], "little")
        start = info.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
        offset = start + info.file_size - header.n_bytes
        if offset <= start or start + info.file_size > path.stat().st_size:
            raise TileFormatError(f"{path} is truncated: {info.filename} is shorter than its header says; copy it again")
        file.seek(start)
        crc_of_header = zlib.crc32(file.read(offset - start))
    return Pixels(
        map_tiles(path, lambda: np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=header.shape)),
        CrcCheck(crc_of_header, info.CRC, f"{path}[{key}]"),
    )


def unpack_member(archive: zipfile.ZipFile, key: str, header: Header, target: Path, path: Path) -> None:
    """Write the values of a uint8 array to a new ``.npy`` file, block by block."""
    if header.is_fortran:
        np.save(target, np.ascontiguousarray(read_array(archive, key, path)))
        return
    images = create_array(target, header.shape)
    flat = images.reshape(-1)
    done = 0
    with (
        _open_member(archive, key, path) as member,
        tqdm(total=header.n_bytes, unit="B", unit_scale=True, desc=f"unpack {path.name}", disable=None, leave=False) as bar,
    ):
        _parse_header(member, key, path)
        try:
            while block := member.read(_COPY_BLOCK_BYTES):
                flat[done : done + len(block)] = np.frombuffer(block, np.uint8)
                done += len(block)
                bar.update(len(block))
        except _DAMAGE as error:
            raise TileFormatError(f"{path}[{key}] is damaged ({reason_of(error)}); copy or download it again") from None
    if done != header.n_bytes:
        raise TileFormatError(f"{path}[{key}] is truncated: {done} of {header.n_bytes} bytes; copy or download it again")
