"""A place on disk where what takes long is made once, unpacked tiles above all, and small facts are kept; knows no labels."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from errno import EACCES
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock
from numpy.typing import DTypeLike, NDArray

from histo_mlflow.base.system import bring_to_disk, is_private, lock_folder, user_id
from histo_mlflow.errors import CacheError
from histo_mlflow.tiles.mapped import map_tiles

# Part of every key: raise it when the way of unpacking changes, so that old entries are not used again.
_FORMAT_VERSION = 4

_IMAGES = "images.npy"
FACTS = "entry.json"
"""The file of an entry that says what it is; it is touched whenever the entry is used."""

_CHECKED_BLOCK_BYTES = 2**18
_N_CHECKED_BLOCKS = 64  # 16 MiB: all of a small set, and what a power cut leaves is rarely less than a sixty-fourth


_held: dict[Path, int] = {}  # entries that this process uses, each with an open descriptor whose lock ends with the process


@dataclass(frozen=True)
class About:
    """What an entry is, for people.

    Attributes:
        kind: Of what is in it, in a word.
        source: What it was made from, without secrets; empty if that has no name.
    """

    kind: str
    source: str = ""


def cache_folder() -> Path:
    """Return the folder of the cache: ``HISTO_CACHE_DIR``, or the user's cache folder."""
    return Path(os.environ.get("HISTO_CACHE_DIR") or platformdirs.user_cache_dir("histo-mlflow", appauthor=False))


def cache_key(*parts: object) -> str:
    """Return a short name for what `parts` describe; other parts or another user, other name."""
    return hashlib.sha256(json.dumps([_FORMAT_VERSION, user_id(), *map(str, parts)]).encode()).hexdigest()[:24]


def unpacked_once(key: str, unpack: Callable[[Path], None], about: About, *, resumes: bool = False) -> NDArray[Any]:
    """Return the tiles under `key`, mapped, calling `unpack` first if they are not in the cache or were damaged there.

    `unpack` gets the path of the ``.npy`` file that it must write them to; the rest is as for `made_once`.
    """
    file = made_once(key, _IMAGES, unpack, what="tiles can't be unpacked", about=about, resumes=resumes)
    return map_tiles(file, lambda: np.load(file, mmap_mode="r", allow_pickle=False))


def made_once(key: str, name: str, make: Callable[[Path], None], *, what: str, about: About, resumes: bool = False) -> Path:
    """Return the file or folder `name` of the entry under `key`, calling `make` with its path if it is not whole.

    An entry appears whole or not at all: it is written beside its place, brought to the disk and renamed, under a lock, so that
    parallel runs make it once and neither a crash nor a power cut leaves anything half. Only its user can read it. A `make`
    that `resumes` finds what an earlier call has left when it was ended, and must know what of it is good. As long as this
    process lives, `histo cache clear` leaves the entry alone.

    Raises:
        CacheError: The cache folder can't be written; begins with `what`.
    """
    entry = cache_folder() / key
    _hold(entry)
    if _is_whole(entry / name):
        return entry / name
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.with_suffix(".lock")):
            if not _is_whole(entry / name):
                shutil.rmtree(entry, ignore_errors=True)
                _fill(entry, name, make, about, resumes=resumes)
            _hold(entry)
    except OSError as error:  # a full disk too
        reason = error.strerror or error
        raise CacheError(f"{what} to {entry.parent} ({reason}); set HISTO_CACHE_DIR to a folder with room") from None
    return entry / name


def recall(key: str) -> dict[str, Any]:
    """Return the facts that were kept under `key`; none if there are none, or others could have written them."""
    file = cache_folder() / f"{key}.json"
    try:
        check_owner(file)
        facts = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def remember(key: str, facts: dict[str, Any]) -> None:
    """Keep some facts under `key`, whole or not at all; where the cache can't be written they are found out anew each time."""
    file = cache_folder() / f"{key}.json"
    draft = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(facts))
        draft.replace(file)
    except OSError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def create_array(target: Path, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> np.memmap[Any, Any]:
    """Return a new memory map of a ``.npy`` file; raises OSError at once if the disk has no room for it."""
    array = np.lib.format.open_memmap(target, mode="w+", dtype=np.dtype(dtype), shape=shape)
    if hasattr(os, "posix_fallocate"):
        # The file is sparse until written, and writing a map on a full disk ends the process with a bus error.
        with target.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, target.stat().st_size)
    return array


def _hold(entry: Path) -> None:
    """Say that an entry is in use, by a lock that many share, and when that was last; waits where it is just being removed."""
    with suppress(OSError):  # there is no entry yet, or there are no locks, and then nothing is removed either
        if entry in _held and os.path.samestat(os.fstat(_held[entry]), entry.stat()):
            return
        for gone in [path for path in _held if path == entry or not path.exists()]:
            os.close(_held.pop(gone))
        if (descriptor := lock_folder(entry, is_shared=True)) is not None:
            _held[entry] = descriptor
        os.utime(entry / FACTS)


def _fill(entry: Path, name: str, make: Callable[[Path], None], about: About, *, resumes: bool) -> None:
    draft = entry.with_suffix(".draft")  # perhaps of a process that was killed; the lock is ours
    if not (resumes and _is_own(draft)):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
    try:
        make(draft / name)
        (draft / FACTS).write_text(json.dumps({"checksum": checksum_blocks(draft / name), "about": asdict(about)}))
        for file in (*draft.rglob("*"), draft):
            bring_to_disk(file)
        draft.rename(entry)
        bring_to_disk(entry.parent)
    finally:
        if not resumes:
            shutil.rmtree(draft, ignore_errors=True)
        with suppress(OSError):
            draft.rmdir()  # where nothing is left to go on with


def checksum_blocks(file: Path) -> str:
    """Return a SHA-256 of size and content; of a large file, of blocks all over it; of a folder, of names and sizes."""
    if file.is_dir():
        inside = sorted((str(each.relative_to(file)), each.stat().st_size) for each in file.rglob("*") if each.is_file())
        return hashlib.sha256(json.dumps(inside).encode()).hexdigest()
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    n_blocks = -(-size // _CHECKED_BLOCK_BYTES)
    with file.open("rb") as opened:
        for block in np.unique(np.linspace(0, max(n_blocks - 1, 0), min(n_blocks, _N_CHECKED_BLOCKS)).astype(np.int64)):
            opened.seek(int(block) * _CHECKED_BLOCK_BYTES)
            digest.update(opened.read(_CHECKED_BLOCK_BYTES))
    return digest.hexdigest()


def _is_whole(file: Path) -> bool:
    """Return whether the file of an entry is there and as it was written; if not, what it was made from still is."""
    with suppress(OSError, ValueError, KeyError, TypeError):  # ValueError: no JSON
        check_owner(file.parent)
        return bool(checksum_blocks(file) == json.loads((file.parent / FACTS).read_text())["checksum"])
    return False


def _is_own(folder: Path) -> bool:
    try:
        check_owner(folder)
    except OSError:
        return False
    return True


def check_owner(path: Path) -> None:
    """Raise `PermissionError` for what others own or could have written, and `OSError` for what is not there."""
    if not is_private(path.lstat()):  # a link can be written by all
        raise PermissionError(EACCES, "what is there is not this user's alone", str(path))
