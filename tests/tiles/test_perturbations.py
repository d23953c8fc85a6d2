import numpy as np
import pytest

from histo_mlflow.pipeline.scoring import choose_tiles, probe
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tiles.perturbations import PROTOCOL, blur, brightness, hue, jpeg, symmetry


@pytest.fixture(scope="module")
def tile() -> np.ndarray:
    return draw_demo(n_tiles=9, tile_size_px=48).images[8].copy()


def test_every_change_gives_a_tile_and_leaves_the_old_one(tile: np.ndarray) -> None:
    before = tile.copy()
    changes = [change for strengths in PROTOCOL.values() for change in strengths.values()]
    assert len(changes) == 19
    for change in changes:
        changed = change(tile)
        assert (changed.shape, changed.dtype) == (tile.shape, np.uint8)
        assert not np.array_equal(changed, before)
    assert np.array_equal(tile, before)


def test_strength_is_ordered(tile: np.ndarray) -> None:
    def distance(changed: np.ndarray) -> float:
        return float(np.abs(changed.astype(int) - tile).mean())

    assert distance(jpeg(tile, 80)) < distance(jpeg(tile, 20))
    assert distance(hue(tile, 10)) < distance(hue(tile, 20))
    assert distance(blur(tile, 1.0)) < distance(blur(tile, 2.0))


def test_by_hand() -> None:
    red = np.full((4, 4, 3), (200, 0, 0), np.uint8)
    assert hue(red, 60)[0, 0].tolist() == pytest.approx([0, 200, 0], abs=6), "120 degrees on from red lies green"
    assert brightness(np.full((2, 2, 3), 100, np.uint8), 1.2)[0, 0].tolist() == [120, 120, 120]
    corner = np.zeros((3, 3, 3), np.uint8)
    corner[0, 0] = 9
    assert symmetry(corner, 1, is_mirrored=False)[2, 0, 0] == 9
    assert symmetry(corner, 0, is_mirrored=True)[0, 2, 0] == 9
    eight = {
        symmetry(np.arange(27, dtype=np.uint8).reshape(3, 3, 3), k, is_mirrored=m).tobytes() for k in range(4) for m in (0, 1)
    }
    assert len(eight) == 8


def test_a_classifier_by_brightness_breaks_only_where_it_should() -> None:
    tiles = draw_demo(n_tiles=90, tile_size_px=32)
    rows = choose_tiles(tiles, 45)
    assert np.bincount(tiles.labels[rows], minlength=9).tolist() == [5] * 9
    assert choose_tiles(tiles, 1000).tolist() == list(range(90))
    found = probe(tiles, rows, lambda images: (images.mean(axis=(1, 2, 3)) > 150).astype(np.int64))
    changed = {(each.kind, each.strength): each.changed.value for each in found}
    assert all(share == 0 for (kind, _), share in changed.items() if kind == "symmetry")
    assert changed["brightness", "x 0.8"] > 0.1
