"""Whatever reaches a served model, checked and cut into uint8 batches: arrays, lists from JSON, tables of encoded images.

MLflow's own checks are not used: of the tensors of a JSON request they truncate floats to uint8 without a word, and they take
either arrays or encoded images, not both (docs/decisions/0006).
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from .decoding import ImageError, check_form, read_rgb, read_size

IMAGE_COLUMN = "image"

# A batch holds at most so many tiles, and of large ones fewer, so that memory stays bounded.
_BATCH_TILES = 128
_BATCH_PIXELS = 2**25
_BATCH_ROWS = 8192  # of features
# Of tiles up to this size a request may hold any number, of larger images together so many pixels: decoding them takes minutes.
_TILE_PIXELS = 512 * 512
_REQUEST_PIXELS = 2**27

Batches = Iterator[NDArray[np.uint8]]
S = TypeVar("S")
T = TypeVar("T")


def batches_of(model_input: Any) -> Batches:
    """Return the tiles of a request as batches ``(n, height, width, 3)`` uint8; everything is checked before the first.

    Args:
        model_input: ``(n_tiles, size, size, 3)`` of integers from 0 to 255; or images encoded as PNG, JPEG or TIFF, as bytes
            or in base64: a table with a column ``image`` (or one column of any name), a mapping of that name to them, a list.
            An empty list is a request for no tiles.

    Raises:
        MlflowException: Something else was given; with the row, if one is to blame.
    """
    cells = _cells(model_input)
    return _array_batches(_as_array(model_input)) if cells is None else _image_batches(cells)


def feature_batches_of(model_input: Any, n_features: int) -> Iterator[NDArray[np.float32]]:
    """Return the features of a request as batches ``(n, n_features)`` float32; everything is checked before the first.

    Args:
        model_input: ``(n_tiles, n_features)`` numbers: an array, lists, or a table with a column for each feature.
        n_features: How many the model takes.

    Raises:
        MlflowException: Something else was given.
    """
    array = _as_array(model_input)
    if array.size == 0:
        array = np.empty((0, n_features), np.float32)
    if array.ndim != 2 or array.shape[1] != n_features or array.dtype.kind not in "fiu":
        raise _refused(f"features are {array.dtype} of shape {array.shape}; numbers (n_tiles, {n_features}) are needed")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        features = array.astype(np.float32)
    if not (is_finite := np.isfinite(features).all(axis=1)).all():
        raise _refused(f"row {int(is_finite.argmin())} holds what is not a number")
    return (features[start : start + _BATCH_ROWS] for start in range(0, len(features), _BATCH_ROWS))


def _as_array(model_input: Any) -> NDArray[Any]:
    try:
        return np.asarray(model_input)
    except (ValueError, OverflowError) as error:  # rows of unlike lengths
        reason = " ".join(str(error).split())[:150]
        raise _refused(f"tiles are not an array ({reason}); (n_tiles, height, width, 3) is needed") from None


def _cells(model_input: Any) -> list[Any] | None:
    """Return the encoded images, or None if these are not encoded images."""
    if isinstance(model_input, Mapping | pd.DataFrame):
        if IMAGE_COLUMN in model_input:
            images = model_input[IMAGE_COLUMN]
        elif isinstance(model_input, pd.DataFrame) and len(model_input.columns) == 1:
            images = model_input.iloc[:, 0]
        else:
            raise _refused(f"give one column {IMAGE_COLUMN!r} of encoded images; got {sorted(map(str, model_input))}")
        # Not by way of numpy, which cuts zero bytes off the end of a file.
        return list(images) if isinstance(images, list | tuple) or getattr(images, "ndim", False) else [images]
    if isinstance(model_input, pd.Series):
        return list(model_input)
    if isinstance(model_input, np.ndarray):  # of an empty list it is one of float64
        return (
            list(model_input) if model_input.ndim == 1 and (model_input.dtype.kind in "OSU" or not len(model_input)) else None
        )
    if isinstance(model_input, Sequence) and (not len(model_input) or isinstance(model_input[0], bytes | str)):
        return list(model_input)
    return None


def _array_batches(tiles: NDArray[Any]) -> Batches:
    if tiles.ndim != 4 or tiles.shape[3] != 3 or 0 in tiles.shape[1:]:
        raise _refused(f"tiles have shape {tiles.shape}; (n_tiles, height, width, 3) is needed")
    try:
        check_form(tiles.shape[2], tiles.shape[1])
    except ImageError as error:
        raise _refused(f"each tile {error}") from None
    if tiles.dtype.kind not in "iu":
        raise _refused(f"tiles are {tiles.dtype}; give uint8 RGB from 0 to 255 (tiles in [0, 1] times 255, rounded, as uint8)")
    if tiles.dtype != np.uint8:  # JSON knows no uint8
        for row, tile in enumerate(tiles):
            if tile.min() < 0 or tile.max() > 255:
                raise _refused(f"row {row} holds values from {tile.min()} to {tile.max()}; uint8 RGB from 0 to 255 is needed")
    return (tiles[rows].astype(np.uint8) for rows in _slices(len(tiles), tiles.shape[1] * tiles.shape[2]))


def _image_batches(cells: list[Any]) -> Batches:
    files = [_of_row(_as_bytes, row, cell) for row, cell in enumerate(cells)]
    sizes = [_of_row(read_size, row, file) for row, file in enumerate(files)]
    for row, (width, height) in enumerate(sizes):
        if (width, height) != sizes[0]:
            raise _refused(
                f"row {row} is {width} x {height} px and row 0 is {sizes[0][0]} x {sizes[0][1]} px; "
                "send tiles of one size in one request"
            )
    n_pixels = sizes[0][0] * sizes[0][1] if sizes else 1
    if n_pixels > _TILE_PIXELS and len(sizes) * n_pixels > _REQUEST_PIXELS:
        raise _refused(
            f"{len(sizes)} images of {sizes[0][0]} x {sizes[0][1]} px are too many for one request: send "
            f"{_REQUEST_PIXELS // n_pixels} at most, or cut them into tiles"
        )

    def decode() -> Batches:
        with ThreadPoolExecutor() as pool:  # Pillow lets go of the interpreter while it decodes
            for rows in _slices(len(files), n_pixels):
                yield np.stack(list(pool.map(partial(_of_row, read_rgb), range(len(files))[rows], files[rows])))

    return decode()


def _as_bytes(cell: Any) -> bytes:
    if isinstance(cell, str):
        try:
            return base64.b64decode(cell, validate=True)
        except (binascii.Error, ValueError):
            raise ImageError("is not base64") from None
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell)
    raise ImageError(f"is {type(cell).__name__}; the bytes of a PNG, JPEG or TIFF are needed, or their base64")


def _of_row(read: Callable[[S], T], row: int, cell: S) -> T:
    try:
        return read(cell)
    except ImageError as error:
        raise _refused(f"row {row} {error}") from None


def _slices(n_tiles: int, n_pixels: int) -> Iterator[slice]:
    step = min(_BATCH_TILES, max(1, _BATCH_PIXELS // n_pixels))
    return (slice(start, start + step) for start in range(0, n_tiles, step))


def _refused(why: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(why)  # type: ignore[no-any-return]
