"""Tiles from a folder with one sub-folder per class; decoded once, in parallel, into the cache."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from histo_mlflow.errors import RequestError, TileFormatError
from histo_mlflow.tiles.cache import Unpacked, cache_key, create_array, unpacked_once
from histo_mlflow.tiles.images import decode_image, image_size_px, list_images, resize_image
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES, TileSet, check_classes

_DECODE_BLOCK_TILES = 256


def read_folder(folder: Path, image_size: int = 0) -> TileSet:
    """Return the tiles of ``folder/<class>/*.{png,jpg,jpeg,tif,tiff}``, ordered by class and file name.

    Sub-folders named after the nine tissue classes, all or some, give these nine; sub-folders of which none is one of the
    nine give a class set of their own, in alphabetical order.

    Args:
        folder: The folder of class folders.
        image_size: Tiles of mixed sizes are resized to this edge length in pixels; 0 means that all must be of one size.

    Raises:
        TileFormatError: A file is unreadable or not RGB, or sizes are mixed and `image_size` is 0.
        RequestError: There are no tiles, or the class folders mix the nine with others.
    """
    files = {sub.name: list_images(sub) for sub in class_folders(folder)}
    classes = _class_order([name for name, paths in files.items() if paths], folder)
    paths = [path for name in classes for path in files.get(name, [])]
    labels = np.array([classes.index(path.parent.name) for path in paths], dtype=np.int64)

    def unpack(target: Path) -> Unpacked:
        _decode_all(paths, target, image_size)
        return Unpacked(labels, classes, groups=None)

    stats = [(path.relative_to(folder), stat.st_size, stat.st_mtime_ns) for path in paths for stat in [path.stat()]]
    return unpacked_once(cache_key(folder.resolve(), image_size, stats), unpack, source=str(folder))


def class_folders(folder: Path) -> list[Path]:
    """Return the sub-folders, sorted by name; hidden ones are passed over."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_order(names: list[str], folder: Path) -> tuple[str, ...]:
    if not names:
        raise RequestError(
            f"{folder} holds no tiles; make one sub-folder per class ({' '.join(COLORECTAL_CLASSES)}) "
            "with png, jpg or tif files"
        )
    strangers = [name for name in names if name not in COLORECTAL_CLASSES]
    if not strangers:
        return COLORECTAL_CLASSES
    if len(strangers) < len(names):
        raise RequestError(
            f"{folder} mixes the nine tissue classes with {' '.join(strangers)}; "
            f"rename to one of {' '.join(COLORECTAL_CLASSES)}, or move those folders away"
        )
    return check_classes(sorted(names), where=str(folder))


def _decode_all(paths: Sequence[Path], target: Path, image_size: int) -> None:
    with ThreadPoolExecutor() as pool:  # threads are enough: Pillow's decoders release the interpreter lock
        size_px = _common_size(paths, list(pool.map(image_size_px, paths)), image_size)
        out = create_array(target, (len(paths), size_px, size_px, 3))
        with tqdm(total=len(paths), unit="tile", desc="decode tiles", disable=None, leave=False) as bar:
            for start in range(0, len(paths), _DECODE_BLOCK_TILES):  # by blocks, so that memory stays flat
                block = paths[start : start + _DECODE_BLOCK_TILES]
                for offset, image in enumerate(pool.map(decode_image, block)):
                    fits = image.shape[0] == size_px
                    out[start + offset] = image if fits else resize_image(image, size_px)
                bar.update(len(block))


def _common_size(paths: Sequence[Path], sizes: list[tuple[int, int]], image_size: int) -> int:
    for path, (width, height) in zip(paths, sizes, strict=True):
        if width != height:
            raise TileFormatError(f"{path} has {width} x {height} px; tiles must be square: cut or pad them")
    smallest, largest = min(sizes), max(sizes)
    if smallest == largest:
        return smallest[0]
    if image_size:
        return image_size
    one, other = paths[sizes.index(smallest)], paths[sizes.index(largest)]
    raise TileFormatError(
        f"tiles have mixed sizes ({one} {smallest[0]} px, {other} {largest[0]} px); "
        "give image_size, to which all will be resized"
    )
