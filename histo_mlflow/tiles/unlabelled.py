"""Images to be classified, with or without labels, in blocks that fit in memory; one bad file does not stop the others."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import RequestError, TileFormatError
from histo_mlflow.tiles.address import Address
from histo_mlflow.tiles.image_files import decode_image, image_size_px, is_tile, list_images, walk_folders
from histo_mlflow.tiles.npz import read_npz_images
from histo_mlflow.tiles.open import check_source, open_tiles
from histo_mlflow.tiles.options import DEMO

_BEGINNINGS_OF_FORMULAS = ("=", "+", "-", "@", "\t", "\r")

# A block holds at most so many images, and of large ones fewer, so that memory stays flat.
_BLOCK_TILES = 256
_BLOCK_PIXELS = 2**25


@dataclass(frozen=True, eq=False)
class ImageBlock:
    """Some images of one size, in order.

    Attributes:
        positions: ``(n,)``, where the images stand in the source.
        images: ``(n, size, size, 3)`` uint8.
    """

    positions: list[int]
    images: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images with a name each.

    Attributes:
        column: What a name is: ``path`` or ``index``.
        names: One per image, in order.
        array: The pixels, if they are one array.
        files: The files, if they are files.
    """

    column: str
    names: list[str]
    array: NDArray[np.uint8] | None = None
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def blocks(self, failures: list[str]) -> Iterator[list[ImageBlock]]:
        """Yield the images in order, some hundreds at a time, grouped by size; what can't be read is put into `failures`."""
        if self.array is not None:
            for start in range(0, len(self), _BLOCK_TILES):
                images = self.array[start : start + _BLOCK_TILES]
                yield [ImageBlock(list(range(start, start + len(images))), images)]
            return
        for positions in self._portions():
            yield _decode_block(self.files, positions, failures)

    def _portions(self) -> Iterator[list[int]]:
        positions: list[int] = []
        n_pixels = 0
        for position, file in enumerate(self.files):
            size = _n_pixels(file)
            if positions and (len(positions) == _BLOCK_TILES or n_pixels + size > _BLOCK_PIXELS):
                yield positions
                positions, n_pixels = [], 0
            positions.append(position)
            n_pixels += size
        if positions:
            yield positions


def _n_pixels(file: Path) -> int:
    """Return the size that the header tells; what can't be read is said when the file is decoded."""
    try:
        width, height = image_size_px(file)
    except TileFormatError:
        return 0
    return width * height


def open_images(source: str) -> ImageSource:
    """Return the images of an npz (labels not needed), of a folder with or without sub-folders, of ``demo``, or one image."""
    check_source(source)
    address = Address.of(source)
    if address.name == DEMO:
        return _from_array(open_tiles(source).images)
    path = address.path
    if is_tile(path) and path.is_file():
        return ImageSource("path", [_name_of(path)], files=(path,))
    if path.is_file():
        return _from_array(read_npz_images(path, address.part))
    files = tuple(file for folder in walk_folders(path) for file in list_images(folder))
    if not files:
        raise RequestError(f"{path} holds no images; put png, jpg or tif files there, or name another folder")
    return ImageSource("path", [_name_of(file) for file in files], files=files)


def _name_of(file: Path) -> str:
    """Return the path so that no spreadsheet takes it for a formula: ``./=A1.png`` is the same file."""
    name = str(file)
    return f"./{name}" if name.startswith(_BEGINNINGS_OF_FORMULAS) else name


def _from_array(array: NDArray[np.uint8]) -> ImageSource:
    return ImageSource("index", [str(k) for k in range(len(array))], array=array)


def _decode_block(files: tuple[Path, ...], positions: list[int], failures: list[str]) -> list[ImageBlock]:
    by_size: dict[int, tuple[list[int], list[NDArray[np.uint8]]]] = {}
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(_decode_or_error, (files[position] for position in positions))
        for position, image in zip(positions, decoded, strict=True):
            if isinstance(image, TileFormatError):
                failures.append(str(image))
                continue
            of_size = by_size.setdefault(image.shape[0], ([], []))
            of_size[0].append(position)
            of_size[1].append(image)
    return [ImageBlock(found, np.stack(images)) for found, images in by_size.values()]


def _decode_or_error(file: Path) -> NDArray[np.uint8] | TileFormatError:
    try:
        return decode_image(file)
    except TileFormatError as error:
        return error
