"""Archives that others have made, unpacked so that nothing in them can do harm; knows no tiles."""

import shutil
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from histo_mlflow.base.escaping import visible
from histo_mlflow.base.plain_values import reason_of, shorten
from histo_mlflow.base.progress import Bar
from histo_mlflow.errors import DownloadError

_BLOCK_BYTES = 2**20
_ENCRYPTED = 0x1


def unpack_zip(archive: Path, folder: Path, *, most_files: int, most_bytes: int) -> None:
    """Unpack a zip into an empty folder; whatever is wrong with it is found before the first file is written.

    Args:
        archive: The zip.
        folder: Where the files will lie.
        most_files: More members than these are refused.
        most_bytes: So are more bytes than these, unpacked: some kilobytes can hold petabytes.

    Raises:
        DownloadError: The archive is damaged, holds what does not belong into one, or the disk has no room for it.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _checked(archive, opened.infolist(), most_files, most_bytes)
            n_bytes = sum(member.file_size for member in members)
            if (free := shutil.disk_usage(folder).free) < n_bytes:
                raise DownloadError(
                    f"{folder} has {free / 1e9:.2f} GB of room, and {archive.name} unpacks to {n_bytes / 1e9:.2f} GB; "
                    "make room, or take a folder on another disk"
                )
            with Bar[None](total=n_bytes, unit="B", unit_scale=True, desc="unpack") as bar:
                for member in members:
                    _unpack_member(opened, member, folder, bar)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise DownloadError(f"{archive} is damaged ({reason_of(error)}); fetch it again") from None


def _unpack_member(opened: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, bar: Any) -> None:
    target = folder / member.filename
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # zipfile gives no more bytes than were stated and checked, and compares their CRC-32.
    with opened.open(member) as source, target.open("xb") as file:
        while block := source.read(_BLOCK_BYTES):
            bar.update(file.write(block))
    if target.stat().st_size != member.file_size:
        raise zipfile.BadZipFile(f"{shorten(member.filename)} is shorter than stated")


def _checked(archive: Path, members: Sequence[zipfile.ZipInfo], most_files: int, most_bytes: int) -> Sequence[zipfile.ZipInfo]:
    """Return the members; raises `DownloadError` for the first that is not a plain file or folder at a place of its own."""
    if len(members) > most_files:
        raise DownloadError(f"{archive} holds {len(members)} files, {most_files} at most are expected; nothing was unpacked")
    if (n_bytes := sum(member.file_size for member in members)) > most_bytes:
        raise DownloadError(
            f"{archive} unpacks to {n_bytes / 1e9:.2f} GB, {most_bytes / 1e9:.2f} GB at most are expected; nothing was unpacked"
        )
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for member in members:
        fault = _fault_of(member)
        place = PurePosixPath(unicodedata.normalize("NFC", member.filename).casefold())  # as disks of Macs and Windows see it
        if fault is None and not member.is_dir():
            fault = "is there twice" if place in files else None
            files.add(place)
        folders.update(place.parents if not member.is_dir() else (place, *place.parents))
        if fault is not None:
            raise DownloadError(f"{archive}: {visible(shorten(member.filename))} {fault}; nothing was unpacked")
    if both := files & folders:
        raise DownloadError(f"{archive}: {visible(shorten(str(min(both))))} is a file and a folder; nothing was unpacked")
    return members


def _fault_of(member: zipfile.ZipInfo) -> str | None:
    """Return why a member must not be unpacked, in words, or None."""
    name, mode = member.orig_filename, member.external_attr >> 16
    if not name or "\0" in name or "\\" in name or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return "is not a path below a folder"
    if ".." in name.split("/"):
        return "leads out of the folder"
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "is a link or a device"
    return "is encrypted" if member.flag_bits & _ENCRYPTED else None
