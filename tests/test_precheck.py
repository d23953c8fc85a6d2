"""The short audit that every training begins with: copies stay together, leaks are refused, damage is named."""

import io
from pathlib import Path

import mlflow
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import histo_mlflow
from histo_mlflow.errors import RequestError
from histo_mlflow.pipeline import precheck
from histo_mlflow.pipeline.precheck import check_tiles
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.options import HoldOutOptions
from histo_mlflow.tiles.splits import hold_out
from histo_mlflow.tiles.tile_set import TileSet

pytestmark = pytest.mark.usefixtures("work")


def _texture(seed: int, size: int = 64) -> NDArray[np.uint8]:
    """A smooth random picture, as unlike another as tiles of tissue are."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(60, 240, (9, 9), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    pink = np.asarray(small, np.float64)[..., None] * (1.0, 0.7, 0.9)
    return np.clip(pink + rng.integers(-12, 13, (size, size, 3)), 0, 250).astype(np.uint8)


def _stored_again(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "JPEG", quality=80)
    return np.asarray(Image.open(file))


def _set(name: str, images: list[NDArray[np.uint8]], labels: list[int] | None = None) -> TileSet:
    given = np.arange(len(images)) % 2 if labels is None else np.array(labels)
    np.savez(name, data=np.stack(images), labels=given, classes=np.array(["x", "y"]))
    return open_tiles(name)


def test_copies_and_near_duplicates_stay_together() -> None:
    own = [_texture(seed) for seed in range(20)]
    relatives = [own[0], own[1][:, ::-1], np.rot90(own[2]), _stored_again(own[3])]
    tiles = check_tiles(_set("a.npz", [*own, *relatives], [*[k % 2 for k in range(20)], 0, 1, 0, 1]), None, allow_leak=None)
    assert tiles.copies is not None
    for k in range(4):
        assert tiles.copies[20 + k] == tiles.copies[k]
    assert len(np.unique(tiles.copies)) == 20
    assert tiles.notes[-1].startswith("audit: ")
    assert "Exact duplicates 2" in tiles.notes[-1]
    for seed in range(10):
        split = hold_out(tiles, HoldOutOptions(0.3), seed=seed)
        assert not set(tiles.copies[split.train.rows]) & set(tiles.copies[split.val.rows])


def test_two_labels_for_one_tile_and_damage_are_said() -> None:
    own = [_texture(seed) for seed in range(12)]
    dark = (own[3] // 8).astype(np.uint8)
    tiles = check_tiles(_set("a.npz", [*own, own[0], dark], [*[k % 2 for k in range(12)], 1, 0]), None, allow_leak=None)
    assert "Exact duplicates of different classes 2" in tiles.notes[-1]
    assert "Tiles in a wrong range of values 1" in tiles.notes[-1]


@pytest.mark.parametrize("change", [lambda tile: tile, lambda tile: tile[::-1], _stored_again])
def test_a_leak_is_refused_unless_it_is_allowed_in_words(change: object) -> None:
    assert callable(change)
    own, others = ([_texture(seed) for seed in range(start, start + 12)] for start in (0, 100))
    data, clean = _set("a.npz", own), _set("clean.npz", others)
    for allowed in (None, "nothing leaks here"):
        assert check_tiles(data, clean, allow_leak=allowed).notes == ("audit: no copies, no damaged tiles",)
    test = _set("test.npz", [*others, change(own[5])], [*[k % 2 for k in range(12)], 1])
    with pytest.raises(RequestError, match=r"test_data=.*: 1 tile.* are in data too, 12 as 5 for one.*--allow-leak REASON"):
        check_tiles(data, test, allow_leak=None)
    assert check_tiles(data, test, allow_leak="one tile of 13").notes[-1] == "leak to the test set allowed: one tile of 13"
    with pytest.raises(RequestError, match="holds the same tiles as data"):
        check_tiles(data, data, allow_leak=None)


def test_it_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [_texture(seed) for seed in range(8)]
    tiles = _set("a.npz", [*own, own[1]], [*[k % 2 for k in range(8)], 1])
    first = check_tiles(tiles, None, allow_leak=None)
    monkeypatch.setattr(precheck, "look_at", None)
    again = check_tiles(tiles, None, allow_leak=None)
    assert first.copies is not None
    assert again.copies is not None
    np.testing.assert_array_equal(first.copies, again.copies)
    assert first.notes == again.notes


@pytest.mark.usefixtures("small_network")
def test_what_is_known_stands_in_run_and_card(work: Path) -> None:
    own = [_texture(seed) for seed in range(40)]
    _set("a.npz", [*own, own[0]], [*[k % 2 for k in range(40)], 0])
    found = histo_mlflow.train(data="a.npz", epochs=1, weights="none", image_size=32)
    assert any(
        "audit: Exact duplicates 2" in note for note in mlflow.artifacts.load_dict(f"runs:/{found.run_id}/about.json")["tiles"]
    )
    card = mlflow.MlflowClient().get_model_version("histo-b3", "1").description
    assert card is not None
    assert "audit: Exact duplicates 2" in card.replace("\\", "")
    with pytest.raises(RequestError, match="holds the same tiles as data"):
        histo_mlflow.train(data="a.npz", test_data="a.npz", epochs=1, weights="none", image_size=32)
