"""`histo cache`: what is there, and what may go."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import histo_mlflow
from histo_mlflow.errors import OptionError
from histo_mlflow.tiles.tile_set import TileSet
from tests.conftest import Histo, save_npz

OPEN = "import sys; from histo_mlflow.tiles.open import open_tiles; t = open_tiles(sys.argv[1])"


def _open_elsewhere(file: Path) -> None:
    """In a process of its own, which ends: what it used is in use no more."""
    subprocess.run([sys.executable, "-c", OPEN, str(file)], check=True)


@pytest.fixture
def filled(work: Path, tiny_tiles: TileSet) -> Path:
    """A cache with one entry of tiles and some facts."""
    _open_elsewhere(save_npz(work / "a.npz", tiny_tiles, compressed=True))
    return work / "cache"


def _folders(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def test_an_empty_cache_is_listed_and_cleared(work: Path, histo_here: Histo) -> None:
    for what in ("list", "clear"):
        assert histo_here("cache", what).returncode == 0
    assert "0.0 MB in" in histo_here("cache").stdout


def test_entries_are_listed_with_what_they_are(filled: Path, work: Path, histo_here: Histo) -> None:
    done = histo_here("cache", "list")
    assert done.returncode == 0, done.stderr
    assert f"{work / 'a.npz'}[data]" in done.stdout
    assert "tiles" in done.stdout
    assert "small files" in done.stdout
    entries = histo_mlflow.cache("list").entries
    assert [entry.kind for entry in entries] == ["tiles", "facts"]
    (folder,) = _folders(filled)
    assert entries[0].n_bytes >= (folder / "images.npy").stat().st_size
    assert entries[0].age_days < 0.1


def test_all_is_removed_and_made_anew(filled: Path, work: Path, tiny_tiles: TileSet, histo_here: Histo) -> None:
    (filled / "backbones").mkdir()
    (filled / "notes.txt").write_text("of the user")
    done = histo_here("cache", "clear")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 entries removed" in done.stdout
    assert not histo_mlflow.cache().entries
    assert {path.name for path in filled.iterdir() if path.suffix != ".lock"} == {"backbones", "notes.txt"}
    _open_elsewhere(work / "a.npz")
    assert histo_mlflow.cache().entries[0].kind == "tiles"


def test_what_was_used_lately_stays(filled: Path, work: Path) -> None:
    (folder,) = _folders(filled)
    old = time.time() - 40 * 86_400
    os.utime(folder / "entry.json", (old, old))
    left = histo_mlflow.cache("clear", older_than=50.0)
    assert (left.n_removed, len(left.entries)) == (0, 2)
    assert left.entries[0].age_days == pytest.approx(40, abs=0.1)
    gone = histo_mlflow.cache("clear", older_than=30.0)
    assert [entry.kind for entry in gone.entries] == ["facts"]
    assert gone.freed_bytes > 0
    assert not folder.exists()


def test_using_an_entry_makes_it_young(filled: Path, work: Path) -> None:
    (folder,) = _folders(filled)
    old = time.time() - 40 * 86_400
    os.utime(folder / "entry.json", (old, old))
    _open_elsewhere(work / "a.npz")
    assert histo_mlflow.cache("clear", older_than=30.0).n_removed == 0


def test_an_entry_in_use_stays_until_its_process_ends(filled: Path, work: Path, histo_here: Histo) -> None:
    code = f"{OPEN}; print('open', flush=True); sys.stdin.readline(); print(int(t.images[:].sum()), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(work / "a.npz")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as using:
        assert using.stdout is not None
        assert using.stdout.readline() == "open\n"
        done = histo_here("cache", "clear")
        assert "in use, and left: tiles" in done.stdout
        assert len(_folders(filled)) == 1
        using.communicate("go on\n", timeout=30)
    assert histo_mlflow.cache("clear").n_removed == 1
    assert not _folders(filled)


def test_what_is_being_made_stays(filled: Path) -> None:
    from filelock import FileLock

    draft = filled / f"{'0' * 24}.draft"
    draft.mkdir()
    with FileLock(filled / f"{'0' * 24}.lock"):
        assert [entry.kind for entry in histo_mlflow.cache("clear").in_use] == ["unfinished"]
    assert draft.exists()
    assert histo_mlflow.cache("clear").n_removed == 1
    assert not draft.exists()


def test_what_others_own_or_could_have_written_stays(filled: Path) -> None:
    (folder,) = _folders(filled)
    folder.chmod(0o777)
    assert [entry.kind for entry in histo_mlflow.cache("clear").entries] == []
    assert folder.exists()


def test_a_link_in_the_place_of_an_entry_is_left_alone(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (filled / ("1" * 24)).symlink_to(tmp_path / "precious")
    histo_mlflow.cache("clear")
    assert (tmp_path / "precious" / "file").exists()


@pytest.mark.parametrize("about", ["", "[]", json.dumps({"about": 3}), json.dumps({"checksum": "x"})])
def test_an_entry_of_another_version_is_listed_all_the_same(filled: Path, about: str) -> None:
    (folder,) = _folders(filled)
    (folder / "entry.json").write_text(about)
    assert histo_mlflow.cache().entries[0].kind == "unknown"


def test_an_age_goes_with_clear_alone() -> None:
    with pytest.raises(OptionError, match=r"older_than=3 goes with `histo cache clear`"):
        histo_mlflow.cache("list", older_than=3.0)
    with pytest.raises(OptionError, match="what=empty: must be one of list, clear"):
        histo_mlflow.cache("empty")
