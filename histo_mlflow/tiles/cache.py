"""A place on disk where compressed and scattered tiles are unpacked once; knows nothing of what the tiles mean."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock
from numpy.typing import NDArray

from histo_mlflow.tiles.tile_set import TileSet, hash_tiles

# Part of every key: raise it when the way of unpacking changes, so that old entries are not used again.
_FORMAT_VERSION = 2


@dataclass(frozen=True, eq=False)
class Unpacked:
    """What an unpacker returns beside the pixels that it wrote: labels ``(n_tiles,)``, class names, optional groups."""

    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    groups: NDArray[np.str_] | None


def cache_folder() -> Path:
    """Return the folder that holds unpacked tiles: ``HISTO_CACHE_DIR``, or the user's cache folder."""
    return Path(os.environ.get("HISTO_CACHE_DIR") or platformdirs.user_cache_dir("histo-mlflow", appauthor=False))


def cache_key(*parts: object) -> str:
    """Return a short name for what `parts` describe; other parts, other name."""
    return hashlib.sha256(json.dumps([_FORMAT_VERSION, *map(str, parts)]).encode()).hexdigest()[:24]


def unpacked_once(key: str, unpack: Callable[[Path], Unpacked], *, source: str) -> TileSet:
    """Return the tiles under `key`, calling `unpack` first if they are not in the cache.

    `unpack` gets the path of the ``.npy`` file that it must write the pixels to. An entry appears whole or not at all: it is
    written beside its place and renamed, under a lock, so that parallel runs unpack once and a crash leaves nothing half.
    """
    entry = cache_folder() / key
    if not (entry / "entry.json").exists():
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.with_suffix(".lock")):
            if not (entry / "entry.json").exists():
                _fill(entry, unpack, source)
    return _open(entry, source)


def create_array(target: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a new uint8 memory map of a ``.npy`` file; raises OSError at once if the disk has no room for it."""
    array = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        # The file is sparse until written, and writing a map on a full disk ends the process with a bus error.
        with target.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, target.stat().st_size)
    return array


def _fill(entry: Path, unpack: Callable[[Path], Unpacked], source: str) -> None:
    draft = entry.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed; the lock is ours
    draft.mkdir()
    try:
        unpacked = unpack(draft / "images.npy")
        images = np.load(draft / "images.npy", mmap_mode="r", allow_pickle=False)
        np.save(draft / "labels.npy", unpacked.labels)
        if unpacked.groups is not None:
            np.save(draft / "groups.npy", unpacked.groups)
        facts = {
            "source": source,
            "classes": unpacked.classes,
            "fingerprint": hash_tiles(images, unpacked.labels),
        }
        (draft / "entry.json").write_text(json.dumps(facts))
        draft.rename(entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _open(entry: Path, source: str) -> TileSet:
    facts: dict[str, Any] = json.loads((entry / "entry.json").read_text())
    groups_file = entry / "groups.npy"
    return TileSet(
        images=np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False),
        labels=np.load(entry / "labels.npy", allow_pickle=False),
        classes=tuple(facts["classes"]),
        groups=np.load(groups_file, allow_pickle=False) if groups_file.exists() else None,
        source=source,
        hashing=lambda: str(facts["fingerprint"]),
    )
