"""Tiles from a folder with one sub-folder per class; decoded once, in parallel, into the cache."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import OptionError, RequestError
from histo_mlflow.tiles.cache import About, cache_key, unpacked_once
from histo_mlflow.tiles.conversion import decode_all
from histo_mlflow.tiles.fingerprint import fingerprint_of
from histo_mlflow.tiles.image_files import is_picture, is_tile, list_files, sub_folders, walk_folders
from histo_mlflow.tiles.mapped import FileStamp
from histo_mlflow.tiles.options import Address
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES, TileSet, check_classes, order_classes

_NESTED = "nested"


def takes(address: Address) -> bool:
    """Return whether it is a folder; raises `OptionError` if it has a part that no folder has."""
    if not address.path.is_dir():
        return False
    if address.part not in {None, _NESTED}:
        raise OptionError(f"{str(address)!r}: {address.name} is a folder and has no splits; leave out '#{address.part}'")
    return True


def read(address: Address, image_size: int = 0) -> TileSet:
    """Return the tiles of ``folder/<class>/*.{png,jpg,jpeg,tif,tiff}``, ordered by class and file name.

    Sub-folders named after the nine tissue classes, all or some, give these nine; sub-folders of which none is one of the
    nine give a class set of their own, in alphabetical order.

    Args:
        address: The folder of class folders; with the part ``nested`` tiles may lie in sub-folders of these, of any depth.
        image_size: Tiles of mixed sizes are resized to this edge length in pixels; 0 means that all must be of one size.

    Raises:
        TileFormatError: Files are unreadable or not RGB, or sizes are mixed and `image_size` is 0.
        RequestError: There are no tiles, the class folders mix the nine with others, or a class folder holds images that would
            be passed over.
    """
    folder, is_nested = address.path, address.part == _NESTED
    found = [(unicodedata.normalize("NFC", sub.name), _list_class(sub, folder, is_nested)) for sub in sub_folders(folder)]
    classes = _class_order([name for name, files in found if files], folder)
    ordered = sorted(((classes.index(name), path) for name, files in found if files for path in files), key=lambda one: one[0])
    passed_over = _describe_passed_over(folder, [name for name, files in found if not files])
    listed = _Listed(folder, [path for _, path in ordered], [label for label, _ in ordered], classes, passed_over)
    return _unpack(listed, image_size)


def read_labelled(
    address: Address, image_size: int, find_labels: Callable[[NDArray[np.str_], Path], list[str | None]]
) -> TileSet:
    """Return the tiles of a folder and of all folders below it, ordered by name, with the classes that `find_labels` gives.

    It gets the names of all files and the folder; files for which it gives None are left out, and counted in the notes.

    Raises:
        TileFormatError: As `read`.
        RequestError: There are no tiles, or no two classes.
    """
    folder = address.path
    paths = sorted(file for each in walk_folders(folder) for file in list_files(each) if is_tile(file))
    if not paths:
        raise RequestError(f"{folder} holds no tiles; put png, jpg or tif files there, or name another folder")
    names = find_labels(_names_of(paths, folder), folder)
    known = {name for name in names if name is not None}
    classes = order_classes(sorted(known, key=lambda name: (int(name) if name.isdecimal() else -1, name)), where=str(folder))
    own = [(classes.index(unicodedata.normalize("NFC", name)), path) for name, path in zip(names, paths, strict=True) if name]
    listed = _Listed(folder, [path for _, path in own], [label for label, _ in own], classes, ())
    n_without = len(paths) - len(own)
    notes = (f"{n_without} of {len(paths)} tiles of {folder} have no class and are left out",) if n_without else ()
    return replace(_unpack(listed, image_size), notes=notes)


@dataclass(frozen=True)
class _Listed:
    """The tiles of a folder before they are decoded, each with the position of its class."""

    folder: Path
    paths: Sequence[Path]
    labels: Sequence[int]
    classes: tuple[str, ...]
    passed_over: tuple[str, ...]


def _names_of(paths: Sequence[Path], folder: Path) -> NDArray[np.str_]:
    return np.array([path.relative_to(folder).as_posix() for path in paths])


def _unpack(listed: _Listed, image_size: int) -> TileSet:
    folder, paths = listed.folder, listed.paths
    names, labels = _names_of(paths, folder), np.array(listed.labels, dtype=np.int64)

    stamps = [(Path(name), FileStamp.of(path)) for name, path in zip(names.tolist(), paths, strict=True)]
    hashed: list[bytes] = []
    images = unpacked_once(
        cache_key(folder.resolve(), image_size, stamps),
        lambda target: hashed.extend(decode_all(paths, target, image_size)),
        About("tiles", str(folder)),
        resumes=True,
    )
    return TileSet(
        images=images,
        labels=labels,
        classes=listed.classes,
        groups=None,
        source=str(folder),
        fingerprint=fingerprint_of(images, labels, hashed),
        passed_over=listed.passed_over,
        given_names=names,
    )


def _list_class(sub: Path, folder: Path, is_nested: bool) -> list[Path]:
    """Return the tiles of a class folder; raises `RequestError` if it holds images that would not be among them."""
    listed = {one: list_files(one) for one in walk_folders(sub)}
    below = {one: n for one, files in listed.items() if one != sub and (n := sum(map(is_picture, files)))}
    if below and not is_nested:
        raise RequestError(
            f"{next(iter(below))} lies in a class folder and holds images itself ({sum(below.values())} images in {len(below)} "
            f"such folder(s) of {sub.name}); move them up, or give {folder}#{_NESTED} to read them too"
        )
    files = [file for one in (sub, *below) for file in listed[one]]
    tiles = [file for file in files if is_tile(file)]
    strangers = [file for file in files if is_picture(file) and not is_tile(file)]
    if strangers or (files and not tiles):
        counts = Counter(file.suffix.lower() for file in strangers or files)
        kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in counts.items())
        raise RequestError(
            f"{sub} holds files that can't be read as tiles ({kinds}); convert them to png, jpg or tif, or move them away"
        )
    return tiles


def _describe_passed_over(folder: Path, empty: Sequence[str]) -> tuple[str, ...]:
    beside = [file.name for file in list_files(folder) if is_picture(file)]
    notes = []
    if beside:
        notes.append(f"{len(beside)} image(s) beside the class folders of {folder}, {beside[0]} for one")
    if empty:
        notes.append(f"class folders of {folder} without a file: {' '.join(empty)}")
    return tuple(notes)


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
