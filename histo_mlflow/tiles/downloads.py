"""A public set brought into a folder of the user's, whole or not at all; knows no set by name."""

import hashlib
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from histo_mlflow.errors import DownloadError, OptionError, RequestError, SourceNotFoundError
from histo_mlflow.tiles.fetching import HttpFile, fetch
from histo_mlflow.tiles.public_sets import PublicSet

_NO_TILES = "__MACOSX"


def download_set(asked: PublicSet, output: Path, given: Path | None) -> Path:
    """Return what to name as `data`, after the set was brought into the folder `output`, which must not exist or be empty.

    What arrives lies in ``OUTPUT.download`` until all is there; when that is interrupted it stays, and the next call goes on.

    Args:
        asked: The set.
        output: The folder.
        given: Its file, if it was fetched by other means.

    Raises:
        RequestError: `output` holds something, or `given` is not the file of the set.
        DownloadError: The file can't be fetched or unpacked.
        OSError: The disk can't be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OptionError(f"output={output}: exists already, and nothing in it is touched; use it, or name another folder")
    if given is not None:
        _check_given(asked, given)
    work = output.with_name(f"{output.name}.download")
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work / "lock", timeout=0):
            file = given or work / asked.file_name
            if not file.exists():
                _fetch(asked, file)
            try:
                _place(asked, file, work / "unpacked", output)
            except DownloadError:
                (work / asked.file_name).unlink(missing_ok=True)  # it holds what it should not: next time another may come
                raise
    except Timeout:
        raise RequestError(f"another command is bringing a set to {output}; wait for it, or name another folder") from None
    shutil.rmtree(work)
    return find_data(output)


def find_data(output: Path) -> Path:
    """Return the one file of a folder, or the folder in it that holds class folders: archives have one around them, or none."""
    while len(inside := [each for each in output.iterdir() if each.name != _NO_TILES and each.name[0] != "."]) == 1:
        output = inside[0]
        if output.is_file():
            break
    return output


def _fetch(asked: PublicSet, file: Path) -> None:
    try:
        fetch(HttpFile(asked.url), file, md5=asked.md5)
    except DownloadError as error:
        if not any(file.parent.glob("*.part")):
            shutil.rmtree(file.parent, ignore_errors=True)  # nothing has come
        raise DownloadError(f"{error}; or fetch {asked.url} by other means, and add --from-file {asked.file_name}") from None


def _place(asked: PublicSet, file: Path, draft: Path, output: Path) -> None:
    shutil.rmtree(draft, ignore_errors=True)  # half of what an earlier call was interrupted at
    draft.mkdir()
    asked.place(file, draft)
    if output.exists():
        output.rmdir()  # empty; else it is an error, and nothing is lost
    draft.rename(output)


def _check_given(asked: PublicSet, given: Path) -> None:
    if not given.is_file():
        raise SourceNotFoundError(f"from_file={given}: no such file; fetch {asked.url} and give its path")
    if not asked.md5:
        return
    with given.open("rb") as opened:
        found = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != asked.md5:
        raise RequestError(
            f"from_file={given}: is not {asked.file_name} as published: MD5 {found}, expected {asked.md5}; fetch it again"
        )
