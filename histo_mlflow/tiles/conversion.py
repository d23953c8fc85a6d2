"""Image files into one array of pixels, by all cores; goes on where it was ended, and knows no labels."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from histo_mlflow.base.escaping import visible
from histo_mlflow.errors import TileFormatError
from histo_mlflow.tiles.cache import bring_to_disk, create_array
from histo_mlflow.tiles.image_files import decode_image, edge_px

_NOTED_TILES = 512  # of work that is lost at most; 77 MB of tiles of 224 px
_N_NAMED = 3
_LIST_OF_UNREADABLE = "unreadable_tiles.txt"


def decode_all(paths: Sequence[Path], target: Path, image_size: int) -> None:
    """Write the pixels of all files to a ``.npy`` file ``(n_tiles, size, size, 3)`` uint8, in their order.

    What an earlier call has written for the same files is not decoded again: beside `target` lies how many that were.

    Args:
        paths: The files.
        target: The ``.npy`` file.
        image_size: Tiles of mixed sizes are brought to this edge length in pixels; 0 if they must be of one size.

    Raises:
        TileFormatError: Some can't be read, or sizes are mixed and `image_size` is 0.
        OSError: The disk can't be written.
    """
    pool = ThreadPoolExecutor()  # threads are enough: Pillow's decoders release the interpreter lock
    try:
        # Nearly always all are as large as the first; to open each for its size alone takes as long as to decode it.
        size_px = next((size for path in paths if isinstance(size := edge_px(path), int)), 1)
        failures = _decode(pool, paths, target, size_px, is_exact=True)
        if failures is None:
            size_px = _common_size(paths, list(pool.map(edge_px, paths)), image_size)
            failures = _decode(pool, paths, target, size_px, is_exact=False)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for gigabytes
    _note(target).unlink(missing_ok=True)
    if failures:
        target.unlink()  # once they are mended, this is another set
        raise _all_in_one(failures, len(paths))


def _decode(
    pool: ThreadPoolExecutor, paths: Sequence[Path], target: Path, size_px: int, *, is_exact: bool
) -> list[TileFormatError] | None:
    """Write all tiles, and return what is wrong with some; None if one `is_exact` not of this size."""
    out, n_finished = _begin(target, (len(paths), size_px, size_px, 3))

    def decode(row: int) -> TileFormatError | int:
        """Write one tile and return its size; its pixels live no longer than this, however large it is."""
        image = decode_image(paths[row])
        if isinstance(image, TileFormatError):
            return image
        if len(image) == size_px:
            out[row] = image
        elif not is_exact:
            out[row] = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR)
        return len(image)

    failures = []
    done = pool.map(decode, range(n_finished, len(paths)))
    bar = tqdm(done, total=len(paths), initial=n_finished, unit="tile", desc="decode tiles", disable=None, leave=False)
    for row, found in enumerate(bar, start=n_finished):
        if isinstance(found, TileFormatError):
            failures.append(found)
        elif is_exact and found != size_px:
            done.close()  # type: ignore[attr-defined]  # a generator: what was not begun is not decoded
            return None
        if not failures and (row + 1) % _NOTED_TILES == 0:  # a tile that failed is to be told again
            bring_to_disk(target)  # before the note; in Python 3.11 `flush` of a map would hold all threads up
            _note(target).write_text(str(row + 1))
    return failures


def _note(target: Path) -> Path:
    return target.with_suffix(".finished")


def _begin(target: Path, shape: tuple[int, ...]) -> tuple[np.memmap[Any, Any], int]:
    """Return the array to write to, and how many of its rows are written."""
    with suppress(OSError, ValueError):  # ValueError: no number, or no array
        n_finished = int(_note(target).read_text())
        out: np.memmap[Any, Any] = np.load(target, mmap_mode="r+", allow_pickle=False)
        if out.shape == shape and out.dtype == np.uint8 and 0 < n_finished <= len(out):
            return out, n_finished
    return create_array(target, shape), 0


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
