"""Pieces of work that several processes share: each belongs to one of them at a time, whatever ends the others.

A claim is a file that only one process can create. Files serve on every shared file system, where locks of the system often do
not reach another machine. A claim whose process has ended counts as left: on the same machine at once, on another when it has
given no sign of life for some minutes.
"""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
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
    token, owner = _read(file)
    if (living := _living_owner(file, owner, draft)) is not None:
        return living
    # Several may have seen that it was left. One of them inherits it: by a claim of its own, on what was left.
    heir = file.with_name(f"{file.name}.after-{token}")
    if _take(heir, draft) is not None:
        return "another process"
    try:
        if _read(file)[0] != token:  # another has inherited it already, or its process has let go of it after all
            return None if _create(draft, file) else "another process"
        spare = draft.with_name(f"{draft.name}.spare")
        spare.write_bytes(draft.read_bytes())
        spare.replace(file)
        return None
    finally:
        heir.unlink(missing_ok=True)


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


def _living_owner(file: Path, owner: Process | None, draft: Path) -> str | None:
    """Return in words who holds a claim, or None if that process has surely or probably ended."""
    try:
        silent_seconds = draft.stat().st_mtime - file.stat().st_mtime  # by one clock, the file server's
    except FileNotFoundError:
        return None
    lives = not owner.is_gone if owner is not None and owner.is_local else silent_seconds <= PATIENCE_SECONDS
    if not lives:
        return None
    return "another process" if owner is None else f"process {owner.pid} on {owner.host}"


def _read(file: Path) -> tuple[str, Process | None]:
    """Return the token of a claim and its process; "" and None where it holds neither, as when it is being written."""
    try:
        content = parse_json(read_small(file, max_bytes=_MAX_BYTES))
        return str(content["token"]), build_plain(Process, content)
    except (OSError, ValueError, KeyError, TypeError):
        return "", None
