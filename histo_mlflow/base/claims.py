"""Pieces of work that several processes share: each belongs to one of them at a time, whatever ends the others.

A claim is a file that only one process can create. Files serve on every shared file system, where locks of the system often do
not reach another machine. A claim whose process has ended counts as left: on the same machine at once, on another when it has
given no sign of life for some minutes.
"""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from histo_mlflow.base.liveness import SIGN_SECONDS, Process, giving_signs
from histo_mlflow.base.plain_values import build_plain, parse_json, read_small

PATIENCE_SECONDS = 5 * SIGN_SECONDS
_MAX_BYTES = 2**12


@contextmanager
def claimed(file: Path) -> Iterator[str | None]:
    """Make `file` this process's claim for the block and give None; or give in words who has it.

    Raises:
        OSError: The folder can't be written.
    """
    token = uuid.uuid4().hex
    draft = file.with_name(f"{file.name}.{token}")
    try:
        draft.write_text(json.dumps({"token": token, **asdict(Process.of(os.getpid()))}))
        owner = _take(file, draft)
    finally:
        draft.unlink(missing_ok=True)
    if owner is not None:
        yield owner
        return
    try:
        with giving_signs(lambda: os.utime(file)):
            yield None
    finally:
        if _read(file)[0] == token:  # else another machine has taken it over, while this one slept
            file.unlink(missing_ok=True)


def _take(file: Path, draft: Path) -> str | None:
    """Make the claim that `draft` holds, or return who has it."""
    if _create(draft, file):
        return None
    if (owner := _living_owner(file, draft)) is not None:
        return owner
    return None if _remove_left(file, draft) and _create(draft, file) else "another process"


def _create(draft: Path, file: Path) -> bool:
    """Give what is written the name of the claim unless there is one, in one step."""
    try:
        file.hardlink_to(draft)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        try:
            with file.open("x") as opened:
                opened.write(draft.read_text())
        except FileExistsError:
            return False
    return True


def _living_owner(file: Path, draft: Path) -> str | None:
    """Return in words who holds a claim, or None if that process has surely or probably ended."""
    _, owner = _read(file)
    try:
        silent_seconds = draft.stat().st_mtime - file.stat().st_mtime  # by one clock, the file server's
    except FileNotFoundError:
        return None
    lives = not owner.is_gone if owner is not None and owner.is_local else silent_seconds <= PATIENCE_SECONDS
    if not lives:
        return None
    return "another process" if owner is None else f"process {owner.pid} on {owner.host}"


def _remove_left(file: Path, draft: Path) -> bool:
    """Remove a claim that was left; False if another process was faster."""
    aside, left = draft.with_name(f"{draft.name}.left"), _read(file)
    with suppress(FileNotFoundError):
        file.rename(aside)
        if _read(aside) != left:  # a new one, which another process has just made in its place
            with suppress(OSError):
                file.hardlink_to(aside)
            aside.unlink()
            return False
        aside.unlink()
    return True


def _read(file: Path) -> tuple[str, Process | None]:
    """Return the token of a claim and its process; "" and None where it holds neither, as when it is being written."""
    try:
        content = parse_json(read_small(file, max_bytes=_MAX_BYTES))
        return str(content["token"]), build_plain(Process, content)
    except (OSError, ValueError, KeyError, TypeError):
        return "", None
