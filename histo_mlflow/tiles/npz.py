"""Tiles from ``.npz`` files, stored or compressed, in our own or in MedMNIST's keys; never unpickles anything.

A stored array is mapped where it lies in the file; a compressed one is unpacked once into the cache. Either way memory stays
flat as the number of tiles grows.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from histo_mlflow.errors import RequestError, TileFormatError
from histo_mlflow.tiles.cache import Unpacked, cache_key, create_array, unpacked_once
from histo_mlflow.tiles.tile_set import (
    COLORECTAL_CLASSES,
    TileSet,
    begin_hashing,
    check_classes,
    check_labels,
    check_pixels,
)

_COPY_BLOCK_BYTES = 16 * 2**20
_LOCAL_HEADER_BYTES = 30  # fixed part of a zip member's local header (APPNOTE.TXT 4.3.7)


@dataclass(frozen=True)
class _Header:
    """The form of one array in the archive, read without reading the array."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]
    n_bytes: int


def read_npz(path: Path, split: str | None = None) -> TileSet:
    """Return the tiles of an ``.npz`` file.

    Args:
        path: Holds ``data`` (n_tiles, size, size, 3) uint8 and ``labels`` (n_tiles,), optionally ``classes`` (n_classes,) and
            ``groups`` (n_tiles,); or MedMNIST's ``<split>_images`` and ``<split>_labels``.
        split: Which split of a MedMNIST file; None for ``train``.

    Raises:
        TileFormatError: The file is not such a file.
    """
    where = f"{path}#{split}" if split else str(path)
    with _open_archive(path) as archive:
        images_key, labels_key = _find_keys(archive, path, split)
        if f"{labels_key}.npy" not in archive.namelist():
            raise TileFormatError(f"{path} has no `{labels_key}` beside `{images_key}`; add the labels and save it again")
        header = _read_image_header(archive, images_key, path)
        n_tiles = header.shape[0]
        classes = _read_classes(archive, path, is_medmnist=images_key != "data", labels_key=labels_key)
        stored_labels = _read_array(archive, labels_key, path)
        labels = check_labels(stored_labels, n_tiles=n_tiles, classes=classes, where=f"{path}[{labels_key}]")
        groups = _read_groups(archive, path, n_tiles=n_tiles) if images_key == "data" else None
        images = _map_if_stored(archive, images_key, header, path)
    if images is not None:
        return TileSet(images, labels, classes, groups, source=where, hashing=begin_hashing(images, labels))
    return _unpacked(path, images_key, header, Unpacked(labels, classes, groups), source=where)


def read_npz_images(path: Path, split: str | None = None) -> NDArray[np.uint8]:
    """Return only the pixels ``(n_tiles, size, size, 3)``, with the same keys and errors; the file needs no labels."""
    with _open_archive(path) as archive:
        images_key, _ = _find_keys(archive, path, split)
        header = _read_image_header(archive, images_key, path)
        images = _map_if_stored(archive, images_key, header, path)
    if images is not None:
        return images
    unlabelled = Unpacked(np.zeros(header.shape[0], dtype=np.int64), COLORECTAL_CLASSES, None)
    return _unpacked(path, images_key, header, unlabelled, source="").images


def _unpacked(path: Path, key: str, header: _Header, beside: Unpacked, *, source: str) -> TileSet:
    def unpack(target: Path) -> Unpacked:
        with _open_archive(path) as archive:
            _unpack_member(archive, key, header, target, path)
        return beside

    stat = path.stat()
    entry = cache_key(path.resolve(), stat.st_size, stat.st_mtime_ns, key, "labelled" if source else "pixels")
    return unpacked_once(entry, unpack, source=source)


def _open_archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        with path.open("rb") as file:
            begins_as_zip = file.read(4) == b"PK\x03\x04"
        if begins_as_zip:
            raise TileFormatError(f"{path} is truncated: its end is missing; copy or download it again") from None
        raise TileFormatError(f"{path} is not an npz file; save tiles with numpy.savez(path, data=..., labels=...)") from None


def _find_keys(archive: zipfile.ZipFile, path: Path, split: str | None) -> tuple[str, str]:
    keys = sorted(name.removesuffix(".npy") for name in archive.namelist())
    splits = [key.removesuffix("_images") for key in keys if key.endswith("_images")]
    if "data" in keys and split is None:
        images_key, labels_key = "data", "labels"
    elif splits:
        chosen = split or "train"
        if chosen not in splits:
            offers = " or ".join(f"{path}#{name}" for name in splits)
            raise RequestError(f"{path} has no {chosen} split; if another is meant, name it: {offers}")
        images_key, labels_key = f"{chosen}_images", f"{chosen}_labels"
    elif split is not None:
        raise RequestError(f"{path} has no splits, so '#{split}' names nothing; leave it out")
    else:
        raise TileFormatError(
            f"{path} has the keys {' '.join(keys) or '(none)'}; `data` and `labels` are needed, "
            "or MedMNIST's train_images and train_labels"
        )
    return images_key, labels_key


def _read_header(archive: zipfile.ZipFile, key: str, path: Path) -> _Header:
    with _open_member(archive, key, path) as member:
        return _parse_header(member, key, path)


def _read_image_header(archive: zipfile.ZipFile, key: str, path: Path) -> _Header:
    header = _read_header(archive, key, path)
    check_pixels(header.shape, header.dtype, where=f"{path}[{key}]")
    return header


def _open_member(archive: zipfile.ZipFile, key: str, path: Path) -> IO[bytes]:
    try:
        return archive.open(f"{key}.npy")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise TileFormatError(f"{path}[{key}] can't be read ({error}); copy or save it again") from None


def _parse_header(member: IO[bytes], key: str, path: Path) -> _Header:
    try:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(member)
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise TileFormatError(f"{path}[{key}] is not a numpy array ({error}); save it again with numpy.savez") from None
    if dtype.hasobject:
        raise TileFormatError(
            f"{path}[{key}] is an object array, which could run code when read and is refused; "
            "save tiles as one uint8 array, labels as integers, names and groups as text (.astype(str))"
        )
    return _Header(shape, is_fortran, dtype, n_bytes=int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)


def _read_array(archive: zipfile.ZipFile, key: str, path: Path) -> NDArray[Any]:
    _read_header(archive, key, path)  # refuses object arrays with our own message
    try:
        with _open_member(archive, key, path) as member:
            return np.asarray(np.lib.format.read_array(member, allow_pickle=False))
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise TileFormatError(f"{path}[{key}] is damaged ({error}); copy or download it again") from None


def _read_classes(archive: zipfile.ZipFile, path: Path, *, is_medmnist: bool, labels_key: str) -> tuple[str, ...]:
    if "classes.npy" in archive.namelist():
        names = _read_array(archive, "classes", path).ravel()
        text = np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names.astype(np.str_)
        return check_classes(text.tolist(), where=f"{path}[classes]")
    # Other MedMNIST sets have other classes and no names in the file: PathMNIST alone has nine, so fewer are refused.
    if is_medmnist and len(np.unique(_read_array(archive, labels_key, path))) < len(COLORECTAL_CLASSES):
        raise TileFormatError(
            f"{path} has fewer classes than PathMNIST's nine and does not name them; "
            "add an array `classes` with the names in label order"
        )
    return COLORECTAL_CLASSES


def _read_groups(archive: zipfile.ZipFile, path: Path, *, n_tiles: int) -> NDArray[np.str_] | None:
    if "groups.npy" not in archive.namelist():
        return None
    groups = _read_array(archive, "groups", path)
    if groups.shape != (n_tiles,):
        raise TileFormatError(f"{path}[groups] has shape {groups.shape}; one group for each of {n_tiles} tiles is needed")
    return groups.astype(np.str_)


def _map_if_stored(archive: zipfile.ZipFile, key: str, header: _Header, path: Path) -> NDArray[np.uint8] | None:
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
    return np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=header.shape)


def _unpack_member(archive: zipfile.ZipFile, key: str, header: _Header, target: Path, path: Path) -> None:
    if header.is_fortran:
        np.save(target, np.ascontiguousarray(_read_array(archive, key, path)))
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
        except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise TileFormatError(f"{path}[{key}] is damaged ({error}); copy or download it again") from None
    if done != header.n_bytes:
        raise TileFormatError(f"{path}[{key}] is truncated: {done} of {header.n_bytes} bytes; copy or download it again")
