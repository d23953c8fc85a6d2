"""A place on disk where compressed and scattered tiles are unpacked once; knows nothing of what the tiles mean."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EACCES
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock
from numpy.typing import NDArray

from histo_mlflow.errors import CacheError, RequestError
from histo_mlflow.tiles.mapped import watched
from histo_mlflow.tiles.tile_set import TileSet, hash_tiles

# Part of every key: raise it when the way of unpacking changes, so that old entries are not used again.
_FORMAT_VERSION = 3

_IMAGES = "images.npy"
_CHECKED_BLOCK_BYTES = 2**18
_N_CHECKED_BLOCKS = 64  # 16 MiB: all of a small set, and what a power cut leaves is rarely less than a sixty-fourth


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
    """Return a short name for what `parts` describe; other parts or another user, other name."""
    return hashlib.sha256(json.dumps([_FORMAT_VERSION, os.getuid(), *map(str, parts)]).encode()).hexdigest()[:24]


def unpacked_once(key: str, unpack: Callable[[Path], Unpacked], *, source: str) -> TileSet:
    """Return the tiles under `key`, calling `unpack` first if they are not in the cache or were damaged there.

    `unpack` gets the path of the ``.npy`` file that it must write the pixels to. An entry appears whole or not at all: it is
    written beside its place, brought to the disk and renamed, under a lock, so that parallel runs unpack once and neither a
    crash nor a power cut leaves anything half. Only its user can read it.

    Raises:
        CacheError: The cache folder can't be written.
    """
    entry = cache_folder() / key
    if (tiles := _open_whole(entry, source)) is not None:
        return tiles
    with _naming_the_folder(entry.parent):
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.with_suffix(".lock")):
            if (tiles := _open_whole(entry, source)) is None:
                shutil.rmtree(entry, ignore_errors=True)
                _fill(entry, unpack, source)
                tiles = _open(entry, source)
    return tiles


@contextmanager
def _naming_the_folder(folder: Path) -> Iterator[None]:
    """Turn what a disk refuses, a full one too, into a `CacheError` that names the way out."""
    try:
        yield
    except RequestError:
        raise
    except OSError as error:
        raise CacheError(
            f"tiles can't be unpacked to {folder} ({error.strerror or error}); set HISTO_CACHE_DIR to a folder with room"
        ) from None


def file_stamp(file: Path) -> tuple[int, ...]:
    """Return what changes when a file is written: a copy may keep size and time of change, but not the other two."""
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


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
    draft.mkdir(mode=0o700)
    try:
        unpacked = unpack(draft / _IMAGES)
        images = np.load(draft / _IMAGES, mmap_mode="r", allow_pickle=False)
        np.save(draft / "labels.npy", unpacked.labels)
        if unpacked.groups is not None:
            np.save(draft / "groups.npy", unpacked.groups)
        facts = {
            "source": source,
            "classes": unpacked.classes,
            "fingerprint": hash_tiles(images, unpacked.labels),
            "checksums": {file.name: _checksum(file) for file in sorted(draft.glob("*.npy"))},
        }
        (draft / "entry.json").write_text(json.dumps(facts))
        for file in (*draft.iterdir(), draft):
            _bring_to_disk(file)
        draft.rename(entry)
        _bring_to_disk(entry.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _bring_to_disk(path: Path) -> None:
    """Wait until a file or the names in a folder are on the disk: a rename may get there before what it names."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _checksum(file: Path) -> str:
    """Return a SHA-256 of size and content; of a large file, of blocks all over it."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    n_blocks = -(-size // _CHECKED_BLOCK_BYTES)
    with file.open("rb") as opened:
        for block in np.unique(np.linspace(0, max(n_blocks - 1, 0), min(n_blocks, _N_CHECKED_BLOCKS)).astype(np.int64)):
            opened.seek(int(block) * _CHECKED_BLOCK_BYTES)
            digest.update(opened.read(_CHECKED_BLOCK_BYTES))
    return digest.hexdigest()


def _open_whole(entry: Path, source: str) -> TileSet | None:
    """Return the tiles of an entry, or None if there is none or it is not as it was written: the source is still there."""
    try:
        return _open(entry, source)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None


def _open(entry: Path, source: str) -> TileSet:
    stat = entry.lstat()
    if not S_ISDIR(stat.st_mode) or stat.st_uid != os.geteuid() or stat.st_mode & 0o022:
        raise PermissionError(EACCES, "the entry there is not this user's alone", str(entry))
    facts: dict[str, Any] = json.loads((entry / "entry.json").read_text())
    if any(_checksum(entry / name) != checksum for name, checksum in facts["checksums"].items()):
        raise ValueError(f"{entry} is damaged")
    groups_file = entry / "groups.npy"
    return TileSet(
        images=watched(np.load(entry / _IMAGES, mmap_mode="r", allow_pickle=False)),
        labels=np.load(entry / "labels.npy", allow_pickle=False),
        classes=tuple(facts["classes"]),
        groups=np.load(groups_file, allow_pickle=False) if groups_file.exists() else None,
        source=source,
        hashing=lambda: str(facts["fingerprint"]),
    )
