"""Images to be classified, with or without labels, in blocks that fit in memory; one bad file does not stop the others."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import RequestError, TileFormatError
from histo_mlflow.tiles import stored_features
from histo_mlflow.tiles.image_files import decode_image, edge_px, is_tile, list_files, walk_folders
from histo_mlflow.tiles.npz import read_npz_images
from histo_mlflow.tiles.open import check_source, open_tiles, split_sources
from histo_mlflow.tiles.options import DEMO, Address
from histo_mlflow.tiles.pixels import Pixels, join_pixels
from histo_mlflow.tiles.remote import brought_here, is_remote
from histo_mlflow.tiles.tile_set import PIXELS, Form

_BEGINNINGS_OF_FORMULAS = ("=", "+", "-", "@", "\t", "\r")

# A block holds at most so many images, and of large ones fewer, so that memory stays flat.
_BLOCK_TILES = 256
_BLOCK_PIXELS = 2**25


@dataclass(frozen=True, eq=False)
class ImageBlock:
    """Some images of one size, in order.

    Attributes:
        positions: ``(n,)``, where the images stand in the source.
        images: ``(n, size, size, 3)`` uint8, or features ``(n, n_features)`` float32.
    """

    positions: list[int]
    images: NDArray[Any]


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images with a name each.

    Attributes:
        column: What a name is: ``path`` or ``index``.
        names: One per image, in order.
        form: What they come as.
        array: The pixels, or features, if they are one array.
        files: The files, if they are files.
        microns_per_pixel: Width of a pixel in micrometres, or None where it is not given.
        is_rescaled: Whether a model of another scale may be shown the middle of each.
    """

    column: str
    names: list[str]
    form: Form = PIXELS
    array: Pixels | None = None
    files: tuple[Path, ...] = ()
    microns_per_pixel: float | None = None
    is_rescaled: bool = False

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
            edge = edge_px(file)
            size = edge**2 if isinstance(edge, int) else 0  # what is wrong is said when the file is decoded
            if positions and (len(positions) == _BLOCK_TILES or n_pixels + size > _BLOCK_PIXELS):
                yield positions
                positions, n_pixels = [], 0
            positions.append(position)
            n_pixels += size
        if positions:
            yield positions


def open_images(source: str) -> ImageSource:
    """Return the images of an npz (labels not needed), of a folder with or without sub-folders, of ``demo``, or one image.

    Stored features count as images; those of slides are named ``SLIDE_X_Y``. Of several sources with commas, all of them.

    Raises:
        RequestError: Some of several sources are arrays and others files, or their forms differ.
    """
    check_source(source)
    addresses = [brought_here(each) if is_remote(each) else each for each in split_sources(source)]
    parts = [(address, _open_one(address)) for address in addresses]
    if len(parts) == 1:
        return parts[0][1]
    arrays = [part.array for _, part in parts if part.array is not None]
    if not arrays:
        return open_files([file for _, part in parts for file in part.files])
    forms = {(part.form, array.shape[1:]) for (_, part), array in zip(parts, arrays, strict=False)}
    if len(arrays) < len(parts) or len(forms) > 1:
        raise RequestError(f"{source}: files and npz, or npz of several sizes, can't be read together; name one at a time")
    names = [_harmless(f"{address}/{name}") for address, part in parts for name in part.names]
    return ImageSource("path", names, parts[0][1].form, array=join_pixels(arrays))


def open_files(files: Sequence[str | PathLike[str]]) -> ImageSource:
    """Return images that are files, in the order given."""
    paths = tuple(Path(each) for each in files)
    return ImageSource("path", [_harmless(str(path)) for path in paths], files=paths)


def _open_one(address: Address) -> ImageSource:
    source = str(address)
    path = address.path
    if stored_features.takes(address):
        features, encoder, names = stored_features.read_features(address)
        return _in_one(features, encoder, names)
    is_demo, is_one = address.name == DEMO, is_tile(path) and path.is_file()
    if is_demo or (path.is_file() and not is_one):
        return _in_one(*((open_tiles(source).images, "") if is_demo else read_npz_images(path, address.part)))
    walked = (file for folder in walk_folders(path) for file in list_files(folder) if is_tile(file))
    files = (path,) if is_one else tuple(walked)
    if not files:
        raise RequestError(f"{path} holds no images; put png, jpg or tif files there, or name another folder")
    return open_files(files)


def _in_one(array: NDArray[Any], encoder: str, names: NDArray[np.str_] | None = None) -> ImageSource:
    column, given = ("index", range(len(array))) if names is None else ("tile", names.tolist())
    form = Form(encoder, array.shape[1]) if encoder else PIXELS
    return ImageSource(column, [_harmless(str(name)) for name in given], form, array=array)


def _harmless(name: str) -> str:
    """Return a name so that no spreadsheet takes it for a formula: ``./=A1.png`` is the same file."""
    return f"./{name}" if name.startswith(_BEGINNINGS_OF_FORMULAS) else name


def _decode_block(files: tuple[Path, ...], positions: list[int], failures: list[str]) -> list[ImageBlock]:
    by_size: dict[int, dict[int, NDArray[np.uint8]]] = defaultdict(dict)
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(decode_image, (files[position] for position in positions))
        for position, image in zip(positions, decoded, strict=True):
            if isinstance(image, TileFormatError):
                failures.append(str(image))
            else:
                by_size[len(image)][position] = image
    return [ImageBlock(list(images), np.stack(list(images.values()))) for images in by_size.values()]
