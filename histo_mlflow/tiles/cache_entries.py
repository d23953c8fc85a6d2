"""What is in the cache, for people who want to know or to have the room back; makes nothing."""

import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from histo_mlflow.base.plain_values import read_small
from histo_mlflow.base.system import lock_folder
from histo_mlflow.errors import CacheError
from histo_mlflow.tiles.cache import FACTS, cache_folder, check_owner

UNFINISHED, FACT, UNKNOWN = "unfinished", "facts", "unknown"

# Other things may lie in the folder, published backbones for one.
_NAME = re.compile(r"(?P<key>[0-9a-f]{24})(?P<ending>|\.draft|\.json)")
_MAX_FACTS_BYTES = 2**16
_SECONDS_OF_A_DAY = 86_400


@dataclass(frozen=True)
class Entry:
    """A thing in the cache.

    Attributes:
        path: Of its folder or file.
        kind: What it is: tiles, features, int8, fetched; facts, of which there are many small ones; unfinished.
        source: What it was made from, or empty.
        n_bytes: What it takes of the disk.
        age_days: Since it was used last; of facts and of what is unfinished, since it was written.
    """

    path: Path
    kind: str
    source: str
    n_bytes: int
    age_days: float


def list_entries() -> list[Entry]:
    """Return what is in the cache and is this user's, the largest first; raises `CacheError` if it can't be read."""
    try:
        found = [entry for path in cache_folder().iterdir() if (entry := _read(path)) is not None]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CacheError(f"the cache {cache_folder()} can't be read ({error.strerror or error})") from None
    return sorted(found, key=lambda entry: (-entry.n_bytes, entry.path.name))


def _read(path: Path) -> Entry | None:
    match = _NAME.fullmatch(path.name)
    if not match:
        return None
    try:
        check_owner(path)
        files = [path, *path.rglob("*")] if path.is_dir() else [path]
        n_bytes = sum(file.lstat().st_blocks * 512 for file in files)  # POSIX counts in these, whatever the disk does
        facts = path / FACTS
        written = (facts if facts.exists() else path).stat().st_mtime
    except OSError:  # another user's, or just removed by another command
        return None
    kind, source = _about(facts)
    if match["ending"]:
        kind = FACT if match["ending"] == ".json" else UNFINISHED
    return Entry(path, kind, source, n_bytes, max(0.0, (time.time() - written) / _SECONDS_OF_A_DAY))


def _about(facts: Path) -> tuple[str, str]:
    try:
        about = json.loads(read_small(facts, max_bytes=_MAX_FACTS_BYTES))["about"]
        return str(about["kind"]), str(about["source"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return UNKNOWN, ""


def remove_entry(entry: Entry) -> bool:
    """Remove an entry unless a process uses or makes it, and return whether it is gone.

    Raises:
        CacheError: It can't be removed.
    """
    try:
        if entry.kind == FACT:
            entry.path.unlink(missing_ok=True)
            return True
        with FileLock(entry.path.with_suffix(".lock"), timeout=0):
            return _remove_folder(entry.path)
    except Timeout:
        return False
    except OSError as error:
        raise CacheError(f"{entry.path} can't be removed ({error.strerror or error})") from None


def _remove_folder(folder: Path) -> bool:
    try:
        descriptor = lock_folder(folder)
    except BlockingIOError:
        return False
    try:
        shutil.rmtree(folder)
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True
