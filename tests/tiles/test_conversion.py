"""Folders turned into one array: killed at any moment, the next start goes on and comes to the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo_mlflow.errors import TileFormatError
from histo_mlflow.tiles import conversion
from histo_mlflow.tiles.conversion import decode_all
from histo_mlflow.tiles.fingerprint import BLOCK_TILES, fingerprint_of
from histo_mlflow.tiles.open import open_tiles

N_TILES = 60
# A conversion that notes its work often, slows down so that it can be hit, and says how many tiles it has decoded itself.
SLOW = """
import sys, time
from pathlib import Path
from histo_mlflow.tiles import conversion
from histo_mlflow.tiles.open import open_tiles
decode, n = conversion.decode_image, 0
def slowly(path):
    global n
    time.sleep(0.02)
    n += 1
    return decode(path)
conversion.decode_image, conversion.BLOCK_TILES = slowly, 4
images = open_tiles('tiles').images
print(n, images.origin.path)
"""


@pytest.fixture
def folder(work: Path) -> Path:
    rng = np.random.default_rng(0)
    for k in range(N_TILES):
        path = work / "tiles" / ("TUM" if k % 2 else "STR") / f"{k:03d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return work / "tiles"


def _content(cache: Path) -> bytes:
    (file,) = cache.glob("*/images.npy")
    return file.read_bytes()


def test_killed_again_and_again_it_comes_to_the_same_bytes(work: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_tiles(folder)
    expected = _content(work / "cache")
    monkeypatch.setenv("HISTO_CACHE_DIR", str(work / "other"))
    n_killed = 0
    for tiles_until_killed in (4, 12, 24, 40):
        running = subprocess.Popen([sys.executable, "-c", SLOW], cwd=work, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while running.poll() is None and time.monotonic() < deadline:
            notes = list((work / "other").glob("*.draft/images.finished"))
            if notes and (text := notes[0].read_text()) and int(text) >= tiles_until_killed:
                os.kill(running.pid, signal.SIGKILL)
                n_killed += 1
                break
            time.sleep(0.002)
        running.communicate(timeout=30)
    assert n_killed >= 3
    last = subprocess.run([sys.executable, "-c", SLOW], cwd=work, capture_output=True, text=True, check=True)
    assert int(last.stdout.split()[0]) <= N_TILES - 40, "what was noted is not decoded again"
    assert _content(work / "other") == expected
    assert not list((work / "other").glob("*.draft"))
    assert sorted(path.name for path in next((work / "other").glob("*/images.npy")).parent.iterdir()) == [
        "entry.json",
        "images.npy",
    ]


def test_a_changed_file_is_another_set(work: Path, folder: Path) -> None:
    before = open_tiles(folder)
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(folder / "TUM" / "001.tif")
    after = open_tiles(folder)
    assert after.fingerprint != before.fingerprint
    assert not after.images[after.names.tolist().index("TUM/001.tif")].any()


@pytest.mark.parametrize("note", ["", "x", "-4", "0", "9999"])
def test_a_note_that_makes_no_sense_means_a_new_beginning(folder: Path, tmp_path: Path, note: str) -> None:
    paths = sorted(folder.rglob("*.tif"))
    np.save(tmp_path / "images.npy", np.zeros((N_TILES, 16, 16, 3), np.uint8))
    (tmp_path / "images.finished").write_text(note)
    decode_all(paths, tmp_path / "images.npy", 0)
    found = np.load(tmp_path / "images.npy")
    np.testing.assert_array_equal(found, [np.asarray(Image.open(path)) for path in paths])


def test_an_array_of_another_shape_is_not_gone_on_with(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((N_TILES, 8, 8, 3), np.uint8))
    (tmp_path / "images.finished").write_text("50")
    decode_all(sorted(folder.rglob("*.tif")), tmp_path / "images.npy", 0)
    assert np.load(tmp_path / "images.npy").shape == (N_TILES, 16, 16, 3)


@pytest.mark.parametrize("n_tiles", [BLOCK_TILES - 1, BLOCK_TILES, BLOCK_TILES + 1])
def test_what_is_hashed_while_it_is_decoded_is_what_is_hashed_when_it_is_read(tmp_path: Path, n_tiles: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (n_tiles, 2, 2, 3), dtype=np.uint8)
    for k, tile in enumerate(values):
        Image.fromarray(tile).save(tmp_path / f"{k:04d}.png")
    hashed = decode_all(sorted(tmp_path.glob("*.png")), tmp_path / "images.npy", 0)
    labels = np.zeros(n_tiles, np.int64)
    assert fingerprint_of(values, labels, hashed) == fingerprint_of(values, labels)
    (tmp_path / "images.finished").write_text(str(n_tiles // 2))  # killed, and gone on
    assert decode_all(sorted(tmp_path.glob("*.png")), tmp_path / "images.npy", 0) == hashed


def test_unreadable_tiles_are_all_told_again_after_a_kill(work: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that failed are never noted as finished, and leave no gigabytes behind."""
    monkeypatch.setattr(conversion, "BLOCK_TILES", 4)
    (folder / "STR" / "010.tif").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(TileFormatError, match=r"010\.tif"):
            open_tiles(folder)
        assert not list((work / "cache").glob("*.draft"))


def test_tiles_of_mixed_sizes_leave_nothing_behind_and_are_resized_when_asked(
    work: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "BLOCK_TILES", 4)
    Image.fromarray(np.full((24, 24, 3), 7, dtype=np.uint8)).save(folder / "TUM" / "059.tif")
    with pytest.raises(TileFormatError, match=r"mixed sizes \(.*16 px, .*059\.tif 24 px\); give image_size"):
        open_tiles(folder)
    assert not list((work / "cache").glob("*.draft"))
    for size in (8, 16):  # another size than all, and that of most
        tiles = open_tiles(folder, image_size=size)
        assert tiles.images.shape == (N_TILES, size, size, 3)
        assert (tiles.images[-1] == 7).all()
        np.testing.assert_array_equal(
            tiles.images[0], Image.open(folder / "STR" / "000.tif").resize((size, size), Image.Resampling.BILINEAR)
        )


def test_a_note_of_an_array_that_is_made_anew_is_gone_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a kill just after would leave rows of zeros that count as finished."""
    np.save(tmp_path / "images.npy", np.zeros((N_TILES, 8, 8, 3), np.uint8))
    (tmp_path / "images.finished").write_text("50")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "create_array", killed)
    with pytest.raises(KeyboardInterrupt):
        decode_all(sorted(folder.rglob("*.tif")), tmp_path / "images.npy", 0)
    assert not (tmp_path / "images.finished").exists()
