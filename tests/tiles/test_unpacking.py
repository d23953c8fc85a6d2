"""Zips as an enemy would make them: nothing is written outside, and nothing at all if anything is wrong."""

import stat
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from histo_mlflow.errors import DownloadError
from histo_mlflow.tiles import unpacking
from histo_mlflow.tiles.unpacking import unpack_zip

LIMITS = {"most_files": 10, "most_bytes": 10**6}


def _zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members:
            opened.writestr(name, content)
    return path


def _link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def test_files_and_folders_are_unpacked(tmp_path: Path) -> None:
    archive = _zip(
        tmp_path / "a.zip", ("set/", b""), ("set/TUM/1.tif", b"x" * 5000), ("set/ADI/2.tif", b"y"), ("set/empty/", b"")
    )
    (tmp_path / "out").mkdir()
    unpack_zip(archive, tmp_path / "out", **LIMITS)
    assert (tmp_path / "out/set/TUM/1.tif").read_bytes() == b"x" * 5000
    assert (tmp_path / "out/set/ADI/2.tif").read_bytes() == b"y"
    assert (tmp_path / "out/set/empty").is_dir()


HOSTILE: dict[str, tuple[list[tuple[str | zipfile.ZipInfo, bytes]], str]] = {
    "up": ([("good", b""), ("../evil", b"x")], r"\.\./evil leads out of the folder"),
    "up in the middle": ([("a/../../evil", b"x")], "leads out"),
    "absolute": ([("/tmp/evil", b"x")], "is not a path below a folder"),
    "drive": ([("C:/evil", b"x")], "is not a path below a folder"),
    "backslash": ([("..\\evil", b"x")], "is not a path below a folder"),
    "link": ([(_link("evil"), b"/etc/passwd")], "is a link or a device"),
    "link as a folder": ([(_link("evil"), b"/tmp"), ("evil/file", b"x")], "is a link"),
    "twice": ([("a", b"1"), ("a", b"2")], "a is there twice"),
    "twice but for case": ([("A/b", b"1"), ("a/B", b"2")], "is there twice"),
    "file and folder": ([("a", b"1"), ("a/b", b"2")], "a is a file and a folder"),
    "bomb": ([("zeros", bytes(2 * 10**6))], r"unpacks to 0\.00 GB, 0\.00 GB at most"),
    "many": ([(f"f{k}", b"") for k in range(11)], "holds 11 files, 10 at most are expected"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_writes_nothing(tmp_path: Path, kind: str) -> None:
    members, words = HOSTILE[kind]
    archive = _zip(tmp_path / "a.zip", *members)
    (tmp_path / "deep" / "out").mkdir(parents=True)
    with pytest.raises(DownloadError, match=rf"{words}.*; nothing was unpacked"):
        unpack_zip(archive, tmp_path / "deep" / "out", **LIMITS)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["a.zip", "deep", "out"]


def test_a_member_larger_than_it_says_is_cut_by_its_sum(tmp_path: Path) -> None:
    """The sizes that were checked are those that count, whatever the stream holds."""
    archive = _zip(tmp_path / "a.zip", ("zeros", bytes(500_000)))
    content = archive.read_bytes().replace((500_000).to_bytes(4, "little"), (5_000).to_bytes(4, "little"))
    archive.write_bytes(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(DownloadError, match=r"a\.zip is damaged"):
        unpack_zip(archive, tmp_path / "out", **LIMITS)
    assert (tmp_path / "out" / "zeros").stat().st_size <= 5_000


def test_a_nul_in_a_name_is_refused(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", ("good_evil", b"x"))
    archive.write_bytes(archive.read_bytes().replace(b"good_evil", b"good\0evil"))
    (tmp_path / "out").mkdir()
    with pytest.raises(DownloadError, match="is not a path below a folder"):
        unpack_zip(archive, tmp_path / "out", **LIMITS)


@pytest.mark.parametrize("n_bytes", [0, 40, 150])
def test_half_an_archive_is_told_in_a_line(tmp_path: Path, n_bytes: int) -> None:
    archive = _zip(tmp_path / "a.zip", ("a", bytes(range(256)) * 20))
    archive.write_bytes(archive.read_bytes()[:n_bytes])
    (tmp_path / "out").mkdir()
    with pytest.raises(DownloadError, match=r"is damaged \(.*\); fetch it again"):
        unpack_zip(archive, tmp_path / "out", **LIMITS)


def test_room_is_looked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda _: usage(1, 1, 100))
    (tmp_path / "out").mkdir()
    with pytest.raises(DownloadError, match=r"of room, and a\.zip unpacks to"):
        unpack_zip(_zip(tmp_path / "a.zip", ("a", bytes(200))), tmp_path / "out", **LIMITS)
