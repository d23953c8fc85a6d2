"""One file of features: what it says of its tiles, and the numbers; in our form, TRIDENT's, STAMP's and LazySlide's.

None of these programs is imported. Sources of the forms: TRIDENT, ``IO.py`` (datasets ``features`` and ``coords``); STAMP,
``preprocessing/__init__.py`` (``feats``, ``coords`` in micrometres); wsidata, ``io/_elems.py`` (tables of a SpatialData zarr).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import reason_of, shorten
from histo_mlflow.base.progress import Bar
from histo_mlflow.errors import RequestError, TileFormatError
from histo_mlflow.tiles import slide_tables
from histo_mlflow.tiles.cache import About, create_array, unpacked_once

HDF5 = (".h5", ".hdf5")
NOT_STATED = "not stated"
BLOCK_ROWS = 4096

_MAX_TILES = 2**24
_MAX_FEATURES = 2**16
_MAX_SHRINKAGE = 1000  # times that a file may grow when it is read: beyond, it holds next to nothing and fills the disk
# What h5py and zarr raise for files that are not as they should be.
_DAMAGE = (OSError, ValueError, LookupError, TypeError, RuntimeError, AttributeError, MemoryError)


@dataclass(frozen=True, eq=False)
class FeatureFile:
    """What a file says, but for the features themselves.

    Attributes:
        path: The file, or the folder of a zarr.
        name: Of the features in it.
        shape: ``(n_tiles, n_features)``.
        encoder: What has made them, in words.
        values: Opens what can be sliced by rows to get features.
        is_slide: Whether its tiles are those of one slide, which the file is named after.
        coordinates: ``(n_tiles, 2)`` of the upper left corners, x and y, in the unit of the file; None of our own.
        labels: ``(n_tiles,)`` names of classes or positions in `classes`; None where it has none.
        classes: Names in label order, or None.
        groups: ``(n_tiles,)`` ids of patient or slide, or None.
    """

    path: Path
    name: str
    shape: tuple[int, int]
    encoder: str
    values: Callable[[], Any]
    is_slide: bool
    coordinates: NDArray[np.float64] | None = None
    labels: NDArray[Any] | None = None
    classes: tuple[str, ...] | None = None
    groups: NDArray[np.str_] | None = None

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the features, some thousand rows at a time; raises `TileFormatError` if they can't be read."""
        try:
            with self.values() as values:
                for start in range(0, self.shape[0], BLOCK_ROWS):
                    yield np.asarray(values[start : start + BLOCK_ROWS])
        except _DAMAGE as error:
            raise TileFormatError(f"{self.path}: features can't be read ({reason_of(error)}); copy or make it again") from None

    @property
    def slide(self) -> str:
        """Name of the file without its suffix."""
        return self.path.stem


def is_feature_file(path: Path) -> bool:
    """Return whether the name is one of a file of features."""
    return (path.suffix in HDF5 and path.is_file()) or (path.suffix == ".zarr" and path.is_dir())


def open_feature_file(path: Path, table: str | None = None) -> FeatureFile:
    """Return what a file of features says; `table` names one of several in a zarr.

    Raises:
        TileFormatError: It can't be read, or is of another form, or lacks coordinates.
        RequestError: It has several tables and none is named, or none of that name.
    """
    try:
        found = _open_hdf5(path) if path.suffix in HDF5 else _open_zarr(path, table)
    except (TileFormatError, RequestError):
        raise
    except _DAMAGE as error:
        raise TileFormatError(f"{path} can't be read as features ({reason_of(error)}); copy or make it again") from None
    n_tiles = found.shape[0]
    for name, values in (("labels", found.labels), ("groups", found.groups)):
        if values is not None and values.shape != (n_tiles,):
            raise TileFormatError(f"{path}: {name} have shape {values.shape}; one for each of {n_tiles} tiles is needed")
    if found.is_slide and (found.coordinates is None or found.coordinates.shape != (n_tiles, 2)):
        has = "no coords" if found.coordinates is None else f"coords of shape {found.coordinates.shape}"
        raise TileFormatError(f"{path} has {has} for its {n_tiles} tiles; ({n_tiles}, 2) is needed: make the file again")
    if found.coordinates is not None and not np.isfinite(found.coordinates).all():
        raise TileFormatError(f"{path}: coords are not all numbers; make the file again")
    return found


def check_shape(shape: tuple[int, ...], dtype: np.dtype[Any], *, where: str, n_bytes: int) -> tuple[int, int]:
    """Return the shape of features that lie in `n_bytes`; raises `TileFormatError` unless it is a possible one."""
    if dtype.kind != "f" or len(shape) != 2:
        raise TileFormatError(f"{where} is {dtype} of shape {shape}; features are floats (n_tiles, n_features)")
    if 0 in shape:
        raise TileFormatError(f"{where} has shape {shape}: it holds nothing; make the file again")
    if shape[0] > _MAX_TILES or shape[1] > _MAX_FEATURES or math.prod(shape) * dtype.itemsize > _MAX_SHRINKAGE * n_bytes:
        raise TileFormatError(f"{where} claims {shape[0]} x {shape[1]} features, more than its {n_bytes} bytes can hold")
    return shape[0], shape[1]


def unpacked_features(
    key: str, shape: tuple[int, int], blocks: Callable[[], Iterator[NDArray[Any]]], *, where: str
) -> NDArray[np.float32]:
    """Return the rows of some blocks as one array of `shape` from the cache, mapped; `blocks` is called if they are not there.

    Raises:
        TileFormatError: They are not all numbers.
    """

    def unpack(target: Path) -> None:
        out = create_array(target, shape, np.float32)
        start = 0
        with Bar[None](total=shape[0], unit="tile", desc="read features", delay=1) as bar:
            for block in blocks():
                with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
                    rows = block.astype(np.float32)
                if not (is_finite := np.isfinite(rows).all(axis=1)).all():
                    wrong = start + int(is_finite.argmin())
                    raise TileFormatError(f"{where}: features of tile {wrong} are not all numbers; make them again")
                out[start : start + len(rows)] = rows
                start += len(rows)
                bar.update(len(rows))

    features: NDArray[np.float32] = unpacked_once(key, unpack, About("features", where))
    return features


def _open_hdf5(path: Path) -> FeatureFile:
    import h5py

    with h5py.File(path, "r") as file:
        name = next((name for name in ("features", "feats") if name in file), None)
        if name is None:
            raise TileFormatError(f"{path} has neither `features` nor `feats`, but {shorten(' '.join(file) or 'nothing')}")
        for each in file:
            if not isinstance(file.get(each, getlink=True), h5py.HardLink):  # it would lead to another file
                raise TileFormatError(f"{path} refers to another file by {shorten(each)}; copy what it means into it")
        values = file[name]
        where, stored = f"{path}[{name}]", values.id.get_storage_size()
        if values.external or values.is_virtual:
            raise TileFormatError(f"{where} lies in another file; copy it into this one")
        shape = check_shape(values.shape, values.dtype, where=where, n_bytes=stored)
        feature_facts, facts = dict(values.attrs), dict(file.attrs)
        is_ours = "encoder_sha256" in feature_facts
        if name == "feats" and facts.get("feat_type", "tile") != "tile":
            raise TileFormatError(f"{where} are features of a {facts['feat_type']}, not of tiles")
        named = facts.get("extractor", feature_facts.get("encoder", NOT_STATED))
        classes = facts.get("classes")
        has_labels = "labels" in file and file["labels"].size <= _MAX_TILES
        return FeatureFile(
            path=path,
            name=name,
            shape=shape,
            encoder=_describe_ours(feature_facts) if is_ours else str(named),
            values=partial(_opened_hdf5, path, name),
            is_slide=not is_ours,
            coordinates=np.asarray(file["coords"], np.float64) if "coords" in file else None,
            labels=_as_text(file["labels"][()]) if has_labels else None,
            classes=None if classes is None else tuple(map(str, np.atleast_1d(classes))),
            groups=_as_text(file["groups"][()]).astype(np.str_) if "groups" in file else None,
        )


def _describe_ours(facts: dict[str, Any]) -> str:
    return (
        f"{facts['encoder']}, weights {facts['encoder_sha256'][:12]}, {facts['tile_size_px']} px, {facts['view']}, "
        f"{facts['precision']}"
    )


@contextmanager
def _opened_hdf5(path: Path, name: str) -> Iterator[Any]:
    import h5py

    with h5py.File(path, "r") as file:
        yield file[name]


def _open_zarr(path: Path, table: str | None) -> FeatureFile:
    read = slide_tables.read(path, table)
    shape = check_shape(read.values.shape, read.values.dtype, where=f"{path}[{read.name}]", n_bytes=read.values.nbytes_stored())
    return FeatureFile(
        path=path,
        name=read.name,
        shape=shape,
        encoder=read.encoder,
        values=partial(slide_tables.opened, path, read.name),
        is_slide=True,
        coordinates=read.coordinates,
        labels=read.labels,
    )


def _as_text(values: NDArray[Any]) -> NDArray[Any]:
    """Return bytes and objects, in which HDF5 gives its strings, as text; numbers as they are."""
    if values.dtype.kind == "O":
        texts = [each.decode() if isinstance(each, bytes) else str(each) for each in values.ravel()]
        return np.array(texts).reshape(values.shape)
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
