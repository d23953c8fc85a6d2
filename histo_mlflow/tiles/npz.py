"""Tiles from ``.npz`` files, stored or compressed, in our own or in MedMNIST's keys; never unpickles anything.

A stored array is mapped where it lies in the file; a compressed one is unpacked once into the cache. Either way memory stays
flat as the number of tiles grows.
"""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import reason_of, shorten
from histo_mlflow.errors import RequestError, TileFormatError
from histo_mlflow.tiles.address import Address
from histo_mlflow.tiles.archive import Header, Pixels, map_if_stored, open_archive, read_array, read_header, unpack_member
from histo_mlflow.tiles.cache import cache_key, unpacked_once
from histo_mlflow.tiles.fingerprint import fingerprint_of
from histo_mlflow.tiles.image_files import is_slide
from histo_mlflow.tiles.mapped import FileStamp
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES, TileSet, check_classes, check_groups, check_labels, check_pixels

# What is read whole is bounded by what the tiles ask for: a member of some kilobytes can unpack to gigabytes.
_MAX_CLASSES = 1000
_MAX_NAME_BYTES = 1024
_MAX_TILES = 2**24
_N_NAMED = 10
_LAST_CODE_POINT = 0x10FFFF


def takes(address: Address) -> bool:
    """Return whether it is a file and not a slide: what else it may be is seen when it is read."""
    return address.path.is_file() and not is_slide(address.path)


def read(address: Address, _image_size: int = 0) -> TileSet:
    """Return the tiles of an ``.npz`` file, which are all of one size.

    It holds ``data`` (n_tiles, size, size, 3) uint8 and ``labels`` (n_tiles,), optionally ``classes`` (n_classes,) and
    ``groups`` (n_tiles,); or MedMNIST's ``<split>_images`` and ``<split>_labels``. The part of the address names that split;
    without one it is ``train``.

    Raises:
        TileFormatError: The file is not such a file.
    """
    path, split = address.path, address.part
    stamp = FileStamp.of(path)
    with open_archive(path) as archive:
        images_key, labels_key = _find_keys(archive, path, split)
        if f"{labels_key}.npy" not in archive.namelist():
            raise TileFormatError(f"{path} has no `{labels_key}` beside `{images_key}`; add the labels and save it again")
        header = _read_image_header(archive, images_key, path)
        n_tiles = header.shape[0]
        names = _read_classes(archive, path)
        labels = check_labels(
            _read_labels(archive, labels_key, path, n_tiles),
            n_classes=len(names or COLORECTAL_CLASSES),
            where=f"{path}[{labels_key}]",
        )
        classes = names or _assume_tissue(labels, path)
        groups = _read_groups(archive, path, n_tiles=n_tiles) if images_key == "data" else None
        passed_over = () if groups is not None else _describe_groups(archive, path)
        pixels = _read_pixels(archive, images_key, header, path, stamp)
    return TileSet(
        images=pixels.images,
        labels=labels,
        classes=classes,
        groups=groups,
        source=f"{path}#{split}" if split else str(path),
        fingerprint=fingerprint_of(pixels.images, labels, pixels.check),
        passed_over=passed_over,
    )


def read_npz_images(path: Path, split: str | None = None) -> NDArray[np.uint8]:
    """Return only the pixels ``(n_tiles, size, size, 3)``, with the same keys and errors; the file needs no labels."""
    stamp = FileStamp.of(path)
    with open_archive(path) as archive:
        images_key, _ = _find_keys(archive, path, split)
        header = _read_image_header(archive, images_key, path)
        pixels = _read_pixels(archive, images_key, header, path, stamp)
    pixels.verify()
    return pixels.images


def _read_pixels(archive: zipfile.ZipFile, key: str, header: Header, path: Path, stamp: FileStamp) -> Pixels:
    """Return the pixels where they lie, or unpacked; `stamp` is the file's from before it was opened."""

    def unpack(target: Path) -> None:
        unpack_member(archive, key, header, target, path)

    return map_if_stored(archive, key, header, path) or Pixels(unpacked_once(cache_key(path.resolve(), stamp, key), unpack))


def _find_keys(archive: zipfile.ZipFile, path: Path, split: str | None) -> tuple[str, str]:
    keys = sorted(name.removesuffix(".npy") for name in archive.namelist())
    splits = [key.removesuffix("_images") for key in keys if key.endswith("_images")]
    if "data" in keys and split is None:
        images_key, labels_key = "data", "labels"
    elif splits:
        chosen = split or "train"
        if chosen not in splits:
            offers = " or ".join(f"{path}#{shorten(name)}" for name in splits[:_N_NAMED])
            raise RequestError(f"{path} has no {chosen} split; if another is meant, name it: {offers}")
        images_key, labels_key = f"{chosen}_images", f"{chosen}_labels"
    elif split is not None:
        raise RequestError(f"{path} has no splits, so '#{split}' names nothing; leave it out")
    else:
        raise TileFormatError(
            f"{path} has the keys {_some(keys) or '(none)'}; `data` and `labels` are needed, "
            "or MedMNIST's train_images and train_labels"
        )
    return images_key, labels_key


def _some(keys: list[str]) -> str:
    return " ".join(map(shorten, keys[:_N_NAMED])) + (f" and {len(keys) - _N_NAMED} more" if len(keys) > _N_NAMED else "")


def _read_image_header(archive: zipfile.ZipFile, key: str, path: Path) -> Header:
    header = read_header(archive, key, path)
    check_pixels(header.shape, header.dtype, where=f"{path}[{key}]")
    if header.shape[0] > _MAX_TILES:  # a few megabytes can hold 10^9 tiles of one pixel, whose labels are read whole
        raise TileFormatError(f"{path}[{key}] has {header.shape[0]} tiles; {_MAX_TILES} at most in one file: divide it")
    return header


def _read_labels(archive: zipfile.ZipFile, key: str, path: Path, n_tiles: int) -> NDArray[Any]:
    header = read_header(archive, key, path)
    if header.shape not in {(n_tiles,), (n_tiles, 1)}:  # MedMNIST has the second
        raise TileFormatError(f"{path}[{key}] has labels of shape {header.shape}; one for each of {n_tiles} tiles is needed")
    _check_item_size(header, key, path)
    return read_array(archive, key, path).reshape(n_tiles)


def _read_classes(archive: zipfile.ZipFile, path: Path) -> tuple[str, ...] | None:
    if "classes.npy" not in archive.namelist():
        return None
    header = read_header(archive, "classes", path)
    if math.prod(header.shape) > _MAX_CLASSES:
        raise TileFormatError(
            f"{path}[classes] has shape {header.shape}; one name for each class is needed, {_MAX_CLASSES} at most"
        )
    return check_classes(
        _as_text(_read_names(archive, "classes", header, path), "classes", path).tolist(), where=f"{path}[classes]"
    )


def _assume_tissue(labels: NDArray[np.int64], path: Path) -> tuple[str, ...]:
    """Return the nine tissue classes, which labels without names mean if they cover them all; others are 0 to 2 too."""
    present = np.unique(labels)
    if len(present) < len(COLORECTAL_CLASSES):
        raise TileFormatError(
            f"{path} has the labels {' '.join(map(str, present))} and does not name them; add an array `classes` with the "
            f"names in label order (without it labels must cover 0 to 8, in the order {' '.join(COLORECTAL_CLASSES)})"
        )
    return COLORECTAL_CLASSES


def _read_groups(archive: zipfile.ZipFile, path: Path, *, n_tiles: int) -> NDArray[np.str_] | None:
    if "groups.npy" not in archive.namelist():
        return None
    header = read_header(archive, "groups", path)
    if header.shape != (n_tiles,):
        raise TileFormatError(f"{path}[groups] has shape {header.shape}; one group for each of {n_tiles} tiles is needed")
    return check_groups(_as_text(_read_names(archive, "groups", header, path), "groups", path), where=f"{path}[groups]")


def _describe_groups(archive: zipfile.ZipFile, path: Path) -> tuple[str, ...]:
    if "groups.npy" not in archive.namelist():
        return ()
    return (f"`groups` of {path}, which do not say of which split they are; save that split as `data`, `labels` and `groups`",)


def _read_names(archive: zipfile.ZipFile, key: str, header: Header, path: Path) -> NDArray[Any]:
    if header.dtype.kind not in "USiufb":
        raise TileFormatError(f"{path}[{key}] holds {header.dtype} values; save names as text (.astype(str))")
    _check_item_size(header, key, path)
    return read_array(archive, key, path).ravel()


def _check_item_size(header: Header, key: str, path: Path) -> None:
    if header.dtype.itemsize > _MAX_NAME_BYTES:
        raise TileFormatError(
            f"{path}[{key}] has items of {header.dtype.itemsize} bytes; {_MAX_NAME_BYTES} at most can be a name"
        )


def _as_text(names: NDArray[Any], key: str, path: Path) -> NDArray[np.str_]:
    if names.dtype.kind == "U" and names.dtype.itemsize:  # numpy checks no text that it reads
        code_points = names.view(np.dtype(np.uint32).newbyteorder(names.dtype.byteorder))
        if np.any((code_points > _LAST_CODE_POINT) | ((code_points >= 0xD800) & (code_points < 0xE000))):
            raise TileFormatError(f"{path}[{key}] does not hold text; copy or save it again (.astype(str))")
    try:
        return np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names.astype(np.str_)
    except UnicodeDecodeError as error:
        raise TileFormatError(
            f"{path}[{key}] holds bytes that are no UTF-8 ({reason_of(error)}); save it as text (.astype(str))"
        ) from None
