"""Several arrays seen as one behave as the array that they stand for, and nothing is copied before it is asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from histo_mlflow.errors import RequestError, TilesChangedError
from histo_mlflow.tiles import fingerprint
from histo_mlflow.tiles.fingerprint import fingerprint_of
from histo_mlflow.tiles.joining import select
from histo_mlflow.tiles.mapped import MappedTiles, check_unchanged
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.pixels import JoinedTiles, join_pixels
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tiles.unlabelled import open_images
from tests.conftest import save_npz

_sizes = st.lists(st.integers(1, 6), min_size=1, max_size=4)
_rows = st.lists(st.integers(0, 3), max_size=9).map(lambda rows: np.array(rows, dtype=np.int64))
_slices = st.builds(slice, st.none() | st.integers(-9, 9), st.none() | st.integers(-9, 9), st.sampled_from((None, 1, 2, -1)))


def _parts(sizes: list[int], size_px: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (n, size_px, size_px, 3), dtype=np.uint8) for n in sizes]


@settings(derandomize=True, deadline=None)
@given(sizes=_sizes, key=st.one_of(_rows, _slices, st.integers(-4, 3)), within=_slices, data=st.data())
def test_indexing_is_that_of_the_whole_array(sizes: list[int], key: Any, within: slice, data: st.DataObject) -> None:
    parts = _parts([4, *sizes])
    whole, joined = np.concatenate(parts), join_pixels(parts)
    assert (joined.shape, joined.dtype, len(joined)) == (whole.shape, whole.dtype, len(whole))
    np.testing.assert_array_equal(joined[key], whole[key])
    np.testing.assert_array_equal(joined[key, within], whole[key, within])
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(whole), max_size=len(whole))))
    np.testing.assert_array_equal(joined[mask], whole[mask])
    chosen = np.flatnonzero(mask)[::-1]
    if len(chosen):
        np.testing.assert_array_equal(joined.select(chosen)[:], whole[chosen])
        np.testing.assert_array_equal(joined.select(chosen).middle(2)[:], whole[chosen][:, 2:4, 2:4])
        np.testing.assert_array_equal(joined.middle(4).middle(2).select(chosen)[:], whole[chosen][:, 2:4, 2:4])
    np.testing.assert_array_equal(np.asarray(joined), whole)


def test_all_of_it_is_never_handed_out_as_if_it_were_one_array() -> None:
    with pytest.raises(ValueError, match="without a copy"):
        np.array(join_pixels(_parts([2, 2])), copy=False)


@pytest.fixture
def halves(work: Path, tiny_tiles: TileSet) -> str:
    """Two npz that together hold the tiny tiles; the second is compressed."""
    np.savez("a.npz", data=tiny_tiles.images[:20], labels=tiny_tiles.labels[:20])
    np.savez_compressed("b.npz", data=tiny_tiles.images[20:], labels=tiny_tiles.labels[20:], classes=tiny_tiles.classes)
    return "a.npz,b.npz"


def test_sources_with_a_comma_are_the_set_that_they_make_up(halves: str, tiny_tiles: TileSet) -> None:
    for tiles in (open_tiles(halves), open_tiles("a.npz, b.npz")):
        assert isinstance(tiles.images, JoinedTiles)
        assert all(isinstance(part, MappedTiles) for part in tiles.images.parts), "they lie where they lay"
        np.testing.assert_array_equal(tiles.images[:], tiny_tiles.images)
        np.testing.assert_array_equal(tiles.labels, tiny_tiles.labels)
        assert tiles.fingerprint == tiny_tiles.fingerprint
        assert tiles.names[[0, 19, 20]].tolist() == ["a.npz/0", "a.npz/19", "b.npz/0"]


def test_the_fingerprint_of_several_is_kept_and_depends_on_which_tiles_they_are(
    halves: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = open_tiles(halves)
    part = select(tiles, np.arange(5, 30))
    assert part.fingerprint == fingerprint_of(np.array(part.images), part.labels) != tiles.fingerprint
    kept = {path: path.stat().st_mtime_ns for path in Path("cache").glob("*.json")}
    assert kept

    def refuse(*_: object) -> str:
        raise AssertionError("it was hashed again")

    # The second file lies in the cache, the first has just been written, and the clock of its disk may be coarse.
    monkeypatch.setattr(fingerprint, "_is_safe", lambda _: True)
    open_tiles(halves)
    monkeypatch.setattr(fingerprint, "_hash_tiles", refuse)
    assert open_tiles(halves).fingerprint == tiles.fingerprint


@pytest.mark.parametrize("change", [b"\x07", b""], ids=["other bytes", "cut short"])
def test_a_change_of_any_of_the_files_is_noticed(halves: str, change: bytes) -> None:
    tiles = open_tiles(halves)
    check_unchanged(tiles.images)
    Path("a.npz").write_bytes(change * Path("a.npz").stat().st_size)
    with pytest.raises(TilesChangedError, match=r"a\.npz was (changed|cut short)"):
        check_unchanged(tiles.images)
    if not Path("a.npz").stat().st_size:
        with pytest.raises(TilesChangedError, match="cut short"):
            tiles.images[:3]


def test_classes_and_groups_of_the_same_name_are_the_same(work: Path, tiny_tiles: TileSet) -> None:
    images = tiny_tiles.images
    np.savez("a.npz", data=images[:4], labels=[0, 1, 0, 1], classes=["x", "y"], groups=["p1", "p1", "p2", "p2"])
    np.savez("b.npz", data=images[4:8], labels=[0, 1, 0, 2], classes=["y", "z", "x"], groups=["p2", "p3", "p3", "p3"])
    tiles = open_tiles("a.npz,b.npz")
    assert tiles.classes == ("x", "y", "z")
    assert [tiles.classes[label] for label in tiles.labels] == ["x", "y", "x", "y", "y", "z", "y", "x"]
    assert tiles.groups is not None
    assert tiles.groups.tolist() == ["p1", "p1", "p2", "p2", "p2", "p3", "p3", "p3"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"groups": ["p1"] * 54}, "has groups and .* has not"),
        ({"data": np.zeros((54, 8, 8, 3), np.uint8)}, "tiles of 32 and 8 px"),
        ({"microns_per_pixel": 0.5}, "state no and 0.5 microns per pixel"),
    ],
)
def test_what_can_not_be_one_set_is_refused(work: Path, tiny_tiles: TileSet, changes: dict[str, Any], reason: str) -> None:
    save_npz(work / "a.npz", tiny_tiles)
    np.savez("b.npz", **{"data": tiny_tiles.images, "labels": tiny_tiles.labels, **changes})
    with pytest.raises(RequestError, match=reason):
        open_tiles("a.npz,b.npz")


def test_images_without_labels_come_from_several_sources_too(halves: str, tiny_tiles: TileSet) -> None:
    images = open_images(halves)
    np.testing.assert_array_equal(np.concatenate([b.images for blocks in images.blocks([]) for b in blocks]), tiny_tiles.images)
    assert (images.column, images.names[0], images.names[20]) == ("path", "a.npz/0", "b.npz/0")
    for name in ("one", "two"):
        Path(name).mkdir()
        Image.fromarray(tiny_tiles.images[0]).save(Path(name) / "x.png")
    assert open_images("one,two").names == ["one/x.png", "two/x.png"]
    with pytest.raises(RequestError, match="can't be read together"):
        open_images("one,a.npz")


def test_a_comma_in_a_path_is_part_of_the_path(work: Path, tiny_tiles: TileSet) -> None:
    save_npz(work / "a,b.npz", tiny_tiles)
    assert len(open_tiles("a,b.npz")) == 54
