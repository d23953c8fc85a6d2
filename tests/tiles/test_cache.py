"""The cache of unpacked tiles, and maps of files that change."""

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo_mlflow.errors import CacheError, TilesChangedError
from histo_mlflow.tiles.mapped import check_unchanged
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.tile_set import TileSet
from tests.conftest import save_npz


def _zero(entry: Path) -> None:
    """What a power cut leaves: the file has its size, and its last blocks never reached the disk."""
    with (entry / "images.npy").open("r+b") as file:
        file.seek(4096)
        file.write(bytes((entry / "images.npy").stat().st_size - 4096))


def _halve(entry: Path) -> None:
    os.truncate(entry / "images.npy", (entry / "images.npy").stat().st_size // 2)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "zeroed": _zero,
    "half": _halve,
    "pixels gone": lambda entry: (entry / "images.npy").unlink(),
    "empty entry.json": lambda entry: (entry / "entry.json").write_text(""),
    "half entry.json": lambda entry: (entry / "entry.json").write_text(json.dumps({"check": "a"})),
    "entry.json gone": lambda entry: (entry / "entry.json").unlink(),
    "gone altogether": lambda entry: shutil.rmtree(entry),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_anew(work: Path, tiny_tiles: TileSet, damage: str) -> None:
    file = save_npz(work / "a.npz", tiny_tiles, compressed=True)
    open_tiles(file)
    (entry,) = (path for path in (work / "cache").iterdir() if path.is_dir())
    DAMAGES[damage](entry)
    again = open_tiles(file)
    np.testing.assert_array_equal(again.images, tiny_tiles.images)
    np.testing.assert_array_equal(again.labels, tiny_tiles.labels)
    assert again.fingerprint == tiny_tiles.fingerprint


def test_others_can_not_read_what_was_unpacked(work: Path, tiny_tiles: TileSet) -> None:
    open_tiles(save_npz(work / "a.npz", tiny_tiles, compressed=True))
    (entry,) = (path for path in (work / "cache").iterdir() if path.is_dir())
    assert entry.stat().st_mode & 0o077 == 0


def test_another_user_has_entries_and_locks_of_his_own(
    work: Path, tiny_tiles: TileSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save_npz(work / "a.npz", tiny_tiles, compressed=True)
    open_tiles(file)
    before = {path.name for path in (work / "cache").iterdir()}
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    open_tiles(file)
    mine = {path.name for path in (work / "cache").iterdir()} - before
    assert {Path(name).suffix for name in mine} == {"", ".lock", ".json"}


def test_a_cache_folder_that_can_not_be_made_is_named_with_the_way_out(
    work: Path, tiny_tiles: TileSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HISTO_CACHE_DIR", "/proc/none")
    with pytest.raises(CacheError, match=r"unpacked to /proc/none .*set HISTO_CACHE_DIR"):
        open_tiles(save_npz(work / "a.npz", tiny_tiles, compressed=True))


def test_a_mapped_file_that_is_rewritten_is_noticed(work: Path, tiny_tiles: TileSet) -> None:
    file = save_npz(work / "a.npz", tiny_tiles)
    tiles = open_tiles(file)
    check_unchanged(tiles.images)
    stat = file.stat()
    with file.open("r+b") as opened:
        opened.seek(20_000)
        opened.write(bytes(100_000))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a copy may keep the time
    with pytest.raises(TilesChangedError, match=r"a\.npz was changed while it was in use"):
        check_unchanged(tiles.images)


def test_a_mapped_file_that_is_touched_is_noticed(work: Path, tiny_tiles: TileSet) -> None:
    file = save_npz(work / "a.npz", tiny_tiles)
    tiles = open_tiles(file)
    os.utime(file)
    with pytest.raises(TilesChangedError):
        check_unchanged(tiles.images)


def test_a_mapped_file_that_is_cut_ends_with_a_line_and_no_signal(work: Path, tiny_tiles: TileSet) -> None:
    file = save_npz(work / "a.npz", tiny_tiles)
    tiles = open_tiles(file)
    assert tiles.fingerprint
    os.truncate(file, 10_000)
    with pytest.raises(TilesChangedError, match="was cut short"):
        tiles.images[np.array([50, 3])]


def test_a_file_that_takes_its_place_is_not_what_is_mapped(work: Path, tiny_tiles: TileSet) -> None:
    file = save_npz(work / "a.npz", tiny_tiles)
    tiles = open_tiles(file)
    save_npz(work / "b.npz", tiny_tiles).replace(file)
    check_unchanged(tiles.images)
    np.testing.assert_array_equal(tiles.images[:], tiny_tiles.images)


def test_an_entry_that_others_could_have_written_is_not_trusted(work: Path, tiny_tiles: TileSet) -> None:
    file = save_npz(work / "a.npz", tiny_tiles, compressed=True)
    open_tiles(file)
    (entry,) = (path for path in (work / "cache").iterdir() if path.is_dir())
    entry.chmod(0o777)
    (entry / "of_the_old_one").touch()
    open_tiles(file)
    assert entry.stat().st_mode & 0o077 == 0
    assert not (entry / "of_the_old_one").exists()


def test_a_file_rewritten_with_its_size_and_time_is_unpacked_anew(work: Path, tiny_tiles: TileSet) -> None:
    file = save_npz(work / "a.npz", tiny_tiles, compressed=True)
    open_tiles(file)
    stat, content = file.stat(), file.read_bytes()
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    open_tiles(file)
    assert len([path for path in (work / "cache").iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize("form", ["npz", "folder"])
def test_a_full_disk_names_the_folder_and_the_way_out(
    work: Path, tiny_tiles: TileSet, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # A map is filled after its blocks are asked for; what is written block by block meets the end of the disk itself.
    save_npz(work / "a.npz", tiny_tiles, compressed=True)
    for name, image in zip(("a", "b"), tiny_tiles.images, strict=False):
        (work / "tiles" / name).mkdir(parents=True)
        Image.fromarray(image).save(work / "tiles" / name / "1.png")
    monkeypatch.setattr(os, "posix_fallocate", no_room)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(
            CacheError, match=r"unpacked to .*cache \((No space left on|File too large).*\); set HISTO_CACHE_DIR"
        ):
            open_tiles(work / ("a.npz" if form == "npz" else "tiles"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
