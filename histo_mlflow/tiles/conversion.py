"""Image files into one array of pixels, by all cores; goes on where it was ended, and knows no labels."""

import errno
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from histo_mlflow.base.escaping import visible
from histo_mlflow.base.progress import Bar
from histo_mlflow.errors import TileFormatError
from histo_mlflow.tiles.cache import create_array
from histo_mlflow.tiles.fingerprint import BLOCK_TILES, hash_block
from histo_mlflow.tiles.image_files import decode_image, edge_px

_N_NAMED = 3
_LIST_OF_UNREADABLE = "unreadable_tiles.txt"


def decode_all(paths: Sequence[Path], target: Path, image_size: int) -> list[bytes]:
    """Write the pixels of all files to a ``.npy`` file ``(n_tiles, size, size, 3)`` uint8, in their order.

    What an earlier call has written for the same files is not decoded again: beside `target` lies how many that were; a block
    of 512 tiles (77 MB of 224 px) is lost at most. Returns the hashes of the blocks, as `fingerprint_of` takes them.

    Args:
        paths: The files.
        target: The ``.npy`` file.
        image_size: Tiles of mixed sizes are brought to this edge length in pixels; 0 if they must be of one size.

    Raises:
        TileFormatError: Some can't be read, or sizes are mixed and `image_size` is 0.
        OSError: The disk can't be written.
    """
    try:
        # Nearly always all are as large as the first; to open each for its size alone takes as long as to decode it.
        size_px = next((size for path in paths if isinstance(size := edge_px(path), int)), 1)
        hashes = _decode(paths, target, size_px, is_exact=True)
        if hashes is None:
            with ThreadPoolExecutor() as pool:
                size_px = _common_size(paths, list(pool.map(edge_px, paths)), image_size)
            hashes = _decode(paths, target, size_px, is_exact=False)
    except TileFormatError:
        for left in (target, _note(target)):  # once that is mended, it is another set
            left.unlink(missing_ok=True)
        raise
    _note(target).unlink(missing_ok=True)
    return hashes or []


def _decode(paths: Sequence[Path], target: Path, size_px: int, *, is_exact: bool) -> list[bytes] | None:
    """Write all tiles and return their hashes; None if one `is_exact` not of this size. Raises what is wrong with some."""
    first_byte, n_finished = _begin(target, (len(paths), size_px, size_px, 3))
    n_bytes, hashes = size_px * size_px * 3, list[bytes]()

    def decode(row: int) -> TileFormatError | int:
        """Write one tile and return its size; its pixels live no longer than this, however large it is."""
        image = decode_image(paths[row])
        if isinstance(image, TileFormatError) or (is_exact and len(image) != size_px):
            return image if isinstance(image, TileFormatError) else len(image)
        return _write(file.fileno(), first_byte + row * n_bytes, image, size_px)

    failures: list[TileFormatError] = []
    pool = ThreadPoolExecutor()  # threads are enough: Pillow's decoders release the interpreter lock
    with target.open("r+b") as file:
        written: np.memmap[Any, Any] = np.load(target, mmap_mode="r", allow_pickle=False)
        done = pool.map(decode, range(n_finished, len(paths)))
        bar = Bar(done, total=len(paths), initial=n_finished, unit="tile", desc="decode tiles")
        try:
            for row, found in enumerate(bar, start=n_finished):
                if isinstance(found, TileFormatError):
                    failures.append(found)
                elif is_exact and found != size_px:
                    return None
                while (len(hashes) + 1) * BLOCK_TILES <= row + 1:  # while others are decoded
                    hashes.append(hash_block(written, len(hashes) * BLOCK_TILES))
                if not failures and (row + 1) % BLOCK_TILES == 0:  # a tile that failed is to be told again
                    os.fdatasync(file.fileno())  # the note may not reach the disk before the tiles
                    _note(target).write_text(str(row + 1))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for gigabytes; none writes to a file that is closed
    if failures:
        raise _all_in_one(failures, len(paths))
    return [*hashes, *(hash_block(written, start) for start in range(len(hashes) * BLOCK_TILES, len(paths), BLOCK_TILES))]


def _write(number: int, at_byte: int, image: NDArray[np.uint8], size_px: int) -> int:
    """Write a tile into an open file, and return the size that it had; through a map each page of it would cost a fault."""
    n_px = len(image)
    if n_px != size_px:
        image = np.asarray(Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR))
    if os.pwrite(number, np.ascontiguousarray(image).data, at_byte) < image.nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return n_px


def _note(target: Path) -> Path:
    return target.with_suffix(".finished")


def _begin(target: Path, shape: tuple[int, ...]) -> tuple[int, int]:
    """Make the file if what is there is not it, and return where its values begin, and how many rows are written."""
    with suppress(OSError, ValueError):  # ValueError: no number, or no array
        n_finished = int(_note(target).read_text())
        begun: np.memmap[Any, Any] = np.load(target, mmap_mode="r", allow_pickle=False)
        if begun.shape == shape and begun.dtype == np.uint8 and 0 < n_finished <= len(begun):
            return begun.offset, n_finished
    _note(target).unlink(missing_ok=True)
    return create_array(target, shape).offset, 0


def _all_in_one(failures: Sequence[TileFormatError], n_tiles: int) -> TileFormatError:
    """Return one error for all tiles that can't be read; of many the whole list is written to a file."""
    if len(failures) == 1:
        return failures[0]
    listed = Path(_LIST_OF_UNREADABLE).absolute()
    try:
        listed.write_text("".join(f"{visible(str(failure))}\n" for failure in failures))
        rest = f"all are listed in {listed}"
    except OSError as error:
        rest = f"their list could not be written to {listed} ({error.strerror})"
    named = "; ".join(str(failure) for failure in failures[:_N_NAMED])
    return TileFormatError(f"{len(failures)} of {n_tiles} tiles can't be read: {named}; {rest}")


def _common_size(paths: Sequence[Path], sizes: Sequence[int | TileFormatError], image_size: int) -> int:
    read = {size: path for size, path in zip(reversed(sizes), reversed(paths), strict=True) if isinstance(size, int)}
    if len(read) <= 1:
        return next(iter(read), 1)
    if image_size:
        return image_size
    smallest, largest = min(read), max(read)
    raise TileFormatError(
        f"tiles have mixed sizes ({read[smallest]} {smallest} px, {read[largest]} {largest} px); "
        "give image_size, to which all will be resized"
    )
