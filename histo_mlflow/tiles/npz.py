"""Tiles from ``.npz`` files, stored or compressed, in our own or in MedMNIST's keys; never unpickles anything.

A stored array is mapped where it lies in the file; a compressed one is unpacked once into the cache. Either way memory stays
flat as the number of tiles grows.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import shorten
from histo_mlflow.errors import RequestError, TileFormatError
from histo_mlflow.tiles.archive import Archive, Member
from histo_mlflow.tiles.cache import cache_key
from histo_mlflow.tiles.feature_formats import BLOCK_ROWS, NOT_STATED, check_shape, unpacked_features
from histo_mlflow.tiles.fingerprint import fingerprint_of
from histo_mlflow.tiles.image_files import is_slide
from histo_mlflow.tiles.mapped import verify_checksum
from histo_mlflow.tiles.options import GROUP, SLIDE, Address
from histo_mlflow.tiles.small_arrays import LEVEL_ARRAYS, read_levels, read_places, read_small, read_text
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES, TileSet, check_classes, check_labels, check_pixels

_FEATURES = "features"
_MAX_CLASSES = 1000
_MAX_TILES = 2**24
_N_NAMED = 10


def takes(address: Address) -> bool:
    """Return whether it is a file and not a slide: what else it may be is seen when it is read."""
    return address.path.is_file() and not is_slide(address.path)


def read(address: Address, _image_size: int = 0) -> TileSet:
    """Return the tiles of an ``.npz`` file, which are all of one size.

    It holds ``data`` (n_tiles, size, size, 3) uint8, or ``features`` (n_tiles, n_features) of floats and perhaps ``encoder``, a
    text; and ``labels`` (n_tiles,), optionally ``classes`` (n_classes,), ``microns_per_pixel`` (one number), by tile (n_tiles,)
    the ids ``sites``, ``patients``, ``groups``, ``slides``, ``regions``, and on slides ``left``, ``top``, ``edge``. Or it holds
    MedMNIST's ``<split>_images`` and ``<split>_labels``. The part of the address names that split; without one it is ``train``.

    Raises:
        TileFormatError: The file is not such a file.
    """
    path, split = address.path, address.part
    with Archive(path) as archive:
        images_key, labels_key = _find_keys(archive, split)
        if labels_key not in archive.keys:
            raise TileFormatError(f"{path} has no `{labels_key}` beside `{images_key}`; add the labels and save it again")
        stored_tiles = _find_tiles(archive, images_key)
        n_tiles = stored_tiles.shape[0]
        names = _read_classes(archive)
        stored = archive.find(labels_key)
        given = read_small(stored, stored.shape in {(n_tiles,), (n_tiles, 1)}, f"one for each of {n_tiles} tiles")
        labels = check_labels(given, n_classes=len(names or COLORECTAL_CLASSES), where=stored.where)
        classes = names or _assume_tissue(labels, path)
        unread = LEVEL_ARRAYS.keys() & archive.keys if images_key not in {"data", _FEATURES} else set()
        levels = {} if unread else read_levels(archive, n_tiles)
        places = read_places(archive, levels.get(SLIDE))
        microns_per_pixel = _read_scale(archive)
        images = _map(stored_tiles)
        encoder = _read_encoder(archive) if images_key == _FEATURES else ""
    note = f"`groups` of {path}, which do not say of which split they are; save that split as `data`, `labels` and `groups`"
    tiles = TileSet(
        images=images,
        labels=labels,
        classes=classes,
        groups=levels.get(GROUP),
        source=f"{path}#{split}" if split else str(path),
        fingerprint=fingerprint_of(images, labels),
        microns_per_pixel=microns_per_pixel,
        passed_over=(note,) if unread else (),
        given_names=None if places is None else places.names,
        encoder=encoder,
        on_slides=places,
    )
    return tiles if levels.keys() <= {GROUP} else tiles.with_levels(levels)


def read_npz_images(path: Path, split: str | None = None) -> tuple[NDArray[Any], str]:
    """Return only the pixels, or features, and what has made these, as `read` does; the file needs no labels."""
    with Archive(path) as archive:
        key = _find_keys(archive, split)[0]
        images = _map(_find_tiles(archive, key))
        encoder = _read_encoder(archive) if key == _FEATURES else ""
    verify_checksum(images)
    return images, encoder


def _find_keys(archive: Archive, split: str | None) -> tuple[str, str]:
    """Return the names of pixels and labels."""
    path, keys = archive.path, archive.keys
    if split is None and (ours := [key for key in ("data", _FEATURES) if key in keys]):
        return ours[0], "labels"
    splits = [key.removesuffix("_images") for key in keys if key.endswith("_images")]
    if splits:
        chosen = split or "train"
        if chosen in splits:
            return f"{chosen}_images", f"{chosen}_labels"
        offers = " or ".join(f"{path}#{shorten(name)}" for name in splits[:_N_NAMED])
        raise RequestError(f"{path} has no {chosen} split; if another is meant, name it: {offers}")
    if split is not None:
        raise RequestError(f"{path} has no splits, so '#{split}' names nothing; leave it out")
    found = " ".join(map(shorten, keys[:_N_NAMED])) + (f" and {len(keys) - _N_NAMED} more" if len(keys) > _N_NAMED else "")
    raise TileFormatError(
        f"{path} has the keys {found or '(none)'}; `data` and `labels` are needed, or MedMNIST's train_images and train_labels"
    )


def _find_tiles(archive: Archive, key: str) -> Member:
    pixels = archive.find(key)
    if key == _FEATURES:
        n_bytes = math.prod(pixels.shape) * pixels.dtype.itemsize
        check_shape(pixels.shape, pixels.dtype, where=pixels.where, n_bytes=n_bytes)
        return pixels
    check_pixels(pixels.shape, pixels.dtype, where=pixels.where)
    if pixels.shape[0] > _MAX_TILES:  # a few megabytes can hold 10^9 tiles of one pixel, whose labels are read whole
        raise TileFormatError(f"{pixels.where} has {pixels.shape[0]} tiles; {_MAX_TILES} at most in one file: divide it")
    return pixels


def _map(stored: Member) -> NDArray[Any]:
    if stored.key != _FEATURES:
        return stored.map()
    archive = stored.archive
    key = cache_key("features", archive.path.resolve(), archive.stamp)
    shape = (stored.shape[0], stored.shape[1])
    return unpacked_features(key, shape, lambda: stored.row_blocks(BLOCK_ROWS), where=stored.where)


def _read_encoder(archive: Archive) -> str:
    if "encoder" not in archive.keys:
        return NOT_STATED
    array = archive.find("encoder")
    return str(read_text(array, math.prod(array.shape) == 1, "one name")[0])


def _read_classes(archive: Archive) -> tuple[str, ...] | None:
    if "classes" not in archive.keys:
        return None
    array = archive.find("classes")
    needed = f"one name for each class, {_MAX_CLASSES} at most,"
    return check_classes(read_text(array, math.prod(array.shape) <= _MAX_CLASSES, needed).tolist(), where=array.where)


def _assume_tissue(labels: NDArray[np.int64], path: Path) -> tuple[str, ...]:
    """Return the nine tissue classes, which labels without names mean if they cover them all; others are 0 to 2 too."""
    present = np.unique(labels)
    if len(present) < len(COLORECTAL_CLASSES):
        raise TileFormatError(
            f"{path} has the labels {' '.join(map(str, present))} and does not name them; add an array `classes` with the "
            f"names in label order (without it labels must cover 0 to 8, in the order {' '.join(COLORECTAL_CLASSES)})"
        )
    return COLORECTAL_CLASSES


def _read_scale(archive: Archive) -> float | None:
    if "microns_per_pixel" not in archive.keys:
        return None
    array = archive.find("microns_per_pixel")
    value = read_small(array, math.prod(array.shape) == 1, "one number")[0]
    if array.dtype.kind not in "iuf" or not 0 < value < math.inf:
        raise TileFormatError(
            f"{array.where} is {shorten(value)}; the width of a pixel in micrometres is needed, or leave it out"
        )
    return float(value)
