"""Tiles that lie elsewhere: on a web server on this machine, and in a store that fsspec keeps in memory."""

import logging
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from histo_mlflow.errors import DownloadError, OptionError, RequestError
from histo_mlflow.tiles import fetching
from histo_mlflow.tiles.open import check_source, open_tiles
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tiles.unlabelled import open_images
from tests.conftest import Histo, save_npz
from tests.file_server import FileServer, file_server


@pytest.fixture
def server(work: Path, tiny_tiles: TileSet, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(fetching, "_PAUSE_SECONDS", 0.01)
    content = save_npz(work / "a.npz", tiny_tiles).read_bytes()
    with file_server(files={"a.npz": content}, etags={"a.npz": '"one"'}) as served:
        yield served


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield memory
    memory.store.clear()


def test_a_file_on_the_web_is_fetched_once(server: FileServer, tiny_tiles: TileSet) -> None:
    first = open_tiles(server.url("a.npz"))
    assert first.fingerprint == tiny_tiles.fingerprint
    assert first.source == server.url("a.npz")
    n_asked = len(server.asked)
    server.breaks_after = [0]  # the second time its headers are enough
    assert open_tiles(server.url("a.npz")).fingerprint == tiny_tiles.fingerprint
    assert len(server.asked) == n_asked + 1


def test_a_broken_connection_goes_on(server: FileServer, tiny_tiles: TileSet) -> None:
    server.breaks_after = [len(server.files["a.npz"]), 90_000]  # the first answer is looked at for its headers alone
    assert open_tiles(server.url("a.npz")).fingerprint == tiny_tiles.fingerprint
    assert "Range" in server.asked[-1]


def test_a_new_version_is_fetched_and_seen(server: FileServer, work: Path, tiny_tiles: TileSet) -> None:
    before = open_tiles(server.url("a.npz"))
    np.savez(work / "b.npz", data=tiny_tiles.images[::-1], labels=tiny_tiles.labels[::-1])
    server.files["a.npz"], server.etags["a.npz"] = (work / "b.npz").read_bytes(), '"two"'
    after = open_tiles(server.url("a.npz"))
    assert after.fingerprint != before.fingerprint
    np.testing.assert_array_equal(after.images[:], tiny_tiles.images[::-1])


def test_a_signature_in_the_address_makes_no_other_file_and_is_shown_nowhere(server: FileServer, work: Path) -> None:
    first = open_tiles(server.url("a.npz?X-Amz-Signature=0123456789abcdef"))
    assert "0123456789abcdef" not in first.source
    n_entries = len([path for path in (work / "cache").iterdir() if path.is_dir()])
    open_tiles(server.url("a.npz?X-Amz-Signature=fedcba9876543210"))
    assert len([path for path in (work / "cache").iterdir() if path.is_dir()]) == n_entries
    kept = b"".join(path.read_bytes() for path in (work / "cache").rglob("*.json"))
    assert b"0123456789abcdef" not in kept


def test_without_the_network_the_last_copy_is_taken_with_a_word(
    server: FileServer, tiny_tiles: TileSet, caplog: pytest.LogCaptureFixture
) -> None:
    open_tiles(server.url("a.npz"))
    server.statuses = [503]
    with caplog.at_level(logging.WARNING):
        assert open_tiles(server.url("a.npz")).fingerprint == tiny_tiles.fingerprint
    assert "what was fetched last is taken from the cache" in caplog.text


def test_what_is_not_there_and_what_can_not_be_reached(server: FileServer) -> None:
    with pytest.raises(DownloadError, match=r"b\.npz can't be fetched \(HTTP 404"):
        open_tiles(server.url("b.npz"))
    with pytest.raises(DownloadError, match=r"can't reach http://127\.0\.0\.1:9/a\.npz \(.*refused\); fetch it by other means"):
        open_tiles("http://127.0.0.1:9/a.npz")


def test_a_part_of_a_file_and_several_files(server: FileServer, work: Path, tiny_tiles: TileSet) -> None:
    np.savez(work / "m.npz", val_images=tiny_tiles.images[:9], val_labels=tiny_tiles.labels[:9, None])
    server.files["m.npz"], server.etags["m.npz"] = (work / "m.npz").read_bytes(), '"m"'
    both = open_tiles(f"{server.url('m.npz')}#val,{work / 'a.npz'}")
    assert len(both) == 9 + len(tiny_tiles)
    assert both.names[0] == f"{server.url('m.npz')}#val/0"


def test_tiles_without_labels_too(server: FileServer, tiny_tiles: TileSet) -> None:
    assert len(open_images(server.url("a.npz")).names) == len(tiny_tiles)


def test_a_file_in_a_store(store: fsspec.AbstractFileSystem, work: Path, tiny_tiles: TileSet) -> None:
    store.pipe("/bucket/a.npz", save_npz(work / "a.npz", tiny_tiles).read_bytes())
    opened = open_tiles("memory://bucket/a.npz")
    assert opened.fingerprint == tiny_tiles.fingerprint
    assert opened.source == "memory://bucket/a.npz"


def _png(work: Path, shade: int) -> bytes:
    Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8)).save(work / "one.png")
    return (work / "one.png").read_bytes()


def test_a_folder_in_a_store_with_classes_and_names(store: fsspec.AbstractFileSystem, work: Path) -> None:
    for k, name in enumerate(("TUM/1.png", "TUM/2.png", "STR/1.png")):
        store.pipe(f"/bucket/tiles/{name}", _png(work, 40 * k))
    tiles = open_tiles("memory://bucket/tiles")
    assert tiles.names.tolist() == ["STR/1.png", "TUM/1.png", "TUM/2.png"]
    assert tiles.images[:, 0, 0, 0].tolist() == [80, 0, 40]
    store.pipe("/bucket/tiles/TUM/3.png", _png(work, 200))
    assert len(open_tiles("memory://bucket/tiles")) == 4


def test_a_folder_that_was_cut_short_goes_on_with_what_is_missing(
    store: fsspec.AbstractFileSystem, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(20):
        store.pipe(f"/bucket/tiles/{'TUM' if k % 2 else 'STR'}/{k}.png", _png(work, k))
    opened: list[str] = []
    open_one = type(store)._open

    def breaks(self: object, path: str, *args: object, **named: object) -> object:
        opened.append(path)
        if len(opened) > 8:
            raise ConnectionError("reset by peer")
        return open_one(self, path, *args, **named)

    with (
        monkeypatch.context() as patch,
        pytest.raises(DownloadError, match=r"can't reach memory://bucket/tiles \(reset by peer\)"),
    ):
        patch.setattr(type(store), "_open", breaks)
        open_tiles("memory://bucket/tiles")
    assert len(opened) > 8
    again: list[str] = []

    def counts(self: object, path: str, *args: object, **named: object) -> object:
        again.append(path)
        return open_one(self, path, *args, **named)

    monkeypatch.setattr(type(store), "_open", counts)
    assert len(open_tiles("memory://bucket/tiles")) == 20
    assert len(again) == 12


@pytest.mark.parametrize("name", ["memory://bucket/none", "memory://bucket/none.npz"])
def test_what_a_store_does_not_hold(store: fsspec.AbstractFileSystem, work: Path, name: str) -> None:
    with pytest.raises(DownloadError, match=f"{name} does not exist"):
        open_tiles(name)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("file:///etc/passwd", "is no address that can be read"),
        ("local:///etc/passwd", "is no address that can be read"),
        ("simplecache::memory://a/b", "is no address that can be read"),
        ("nothing://bucket/a.npz", "nothing:// is not known"),
        ("://a", "is no address that can be read"),
    ],
)
def test_addresses_that_are_none_are_told_before_a_run_begins(source: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        check_source(source)
    with pytest.raises(RequestError, match=words):
        open_tiles(source)


def test_a_store_whose_library_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(OptionError, match=r"s3://bucket/a\.npz: .*; python -m pip install -e '\.\[remote\]'"):
        check_source("s3://bucket/a.npz")


@pytest.mark.slow
def test_a_training_on_tiles_from_the_web_has_no_secret_in_its_run(
    server: FileServer, work: Path, small_network: None, histo_here: Histo
) -> None:
    import mlflow

    address = server.url("a.npz?token=supersecret99").replace("http://", "http://me:hunter2222@")
    done = histo_here("train", "--data", address, "--weights", "none", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    said = f"{done.stdout}{done.stderr}{run.to_dictionary()}"
    assert "127.0.0.1" in said
    assert "supersecret99" not in said
    assert "hunter2222" not in said
    for path in work.rglob("*"):
        if path.is_file() and path.suffix in {".yaml", ".json", ".html", ".md", ".db"}:
            assert b"supersecret99" not in path.read_bytes(), path
            assert b"hunter2222" not in path.read_bytes(), path
