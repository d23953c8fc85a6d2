"""Fingerprints that are kept for the next start, and when they are not believed."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from histo_mlflow.errors import TileFormatError, TilesChangedError
from histo_mlflow.tiles import fingerprint, mapped
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.tile_set import TileSet
from tests.conftest import save_npz

KEPT = "as it is kept"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as old the moment that they are written."""
    monkeypatch.setattr(mapped, "_COARSEST_CLOCK_NS", -1)


def _records(work: Path) -> list[Path]:
    return list((work / "cache").glob("*.json"))


def _mark(record: Path) -> None:
    record.write_text(json.dumps({**json.loads(record.read_text()), "fingerprint": KEPT}))


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("compressed", [False, True])
def test_a_second_start_takes_what_the_first_has_kept(work: Path, tiny_tiles: TileSet, compressed: bool) -> None:
    file = save_npz(work / "a.npz", tiny_tiles, compressed=compressed)
    assert open_tiles(file).fingerprint == tiny_tiles.fingerprint
    (record,) = _records(work)
    assert record.stat().st_mode & 0o077 == 0
    _mark(record)
    assert open_tiles(file).fingerprint == KEPT


@pytest.mark.usefixtures("settled")
def test_another_file_of_the_same_size_and_time_is_hashed(work: Path, tiny_tiles: TileSet) -> None:
    file = save_npz(work / "a.npz", tiny_tiles)
    open_tiles(file)
    _mark(_records(work)[0])
    stat = file.stat()
    with file.open("r+b") as opened:
        opened.write(opened.read())
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert open_tiles(file).fingerprint == tiny_tiles.fingerprint


def test_of_a_file_that_was_just_written_nothing_is_kept(work: Path, tiny_tiles: TileSet) -> None:
    """Its times would not show a change within the same tick of the clock."""
    open_tiles(save_npz(work / "a.npz", tiny_tiles))
    assert _records(work) == []


DISTRUSTED: dict[str, Callable[[Path], object]] = {
    "others could write it": lambda record: record.chmod(0o666),
    "a link": lambda record: record.rename(record.with_suffix(".real")) and record.symlink_to(record.with_suffix(".real")),
    "empty": lambda record: record.write_text(""),
    "no mapping": lambda record: record.write_text("[]"),
    "of other bytes": lambda record: record.write_text(json.dumps({"checksum": "0", "fingerprint": KEPT})),
}


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("case", DISTRUSTED)
def test_a_record_that_is_not_to_be_trusted_is_made_anew(work: Path, tiny_tiles: TileSet, case: str) -> None:
    file = save_npz(work / "a.npz", tiny_tiles)
    open_tiles(file)
    (record,) = _records(work)
    _mark(record)
    DISTRUSTED[case](record)
    assert open_tiles(file).fingerprint == tiny_tiles.fingerprint
    assert json.loads(record.read_text())["fingerprint"] == tiny_tiles.fingerprint


@pytest.mark.usefixtures("settled")
def test_a_damaged_file_is_found_at_each_start(work: Path, tiny_tiles: TileSet) -> None:
    file = save_npz(work / "a.npz", tiny_tiles)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    for _ in range(2):
        with pytest.raises(TileFormatError, match="CRC"):
            open_tiles(file)


@pytest.mark.usefixtures("settled")
def test_a_change_while_tiles_are_hashed_is_noticed(work: Path, tiny_tiles: TileSet, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save_npz(work / "a.npz", tiny_tiles)
    hash_tiles = fingerprint._hash_tiles

    def hash_and_touch(*arguments: object) -> str:
        os.utime(file)
        return hash_tiles(*arguments)

    monkeypatch.setattr(fingerprint, "_hash_tiles", hash_and_touch)
    with pytest.raises(TilesChangedError, match="was changed while it was in use"):
        open_tiles(file)
    assert _records(work) == []


@pytest.mark.usefixtures("settled")
def test_a_cache_that_can_not_be_written_stops_no_stored_file(
    work: Path, tiny_tiles: TileSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HISTO_CACHE_DIR", "/proc/none")
    assert open_tiles(save_npz(work / "a.npz", tiny_tiles)).fingerprint == tiny_tiles.fingerprint
