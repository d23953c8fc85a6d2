"""The same tile again, bit for bit or nearly, within a set, across classes and across sets."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from histo_mlflow.auditing.checks import find_all, look_at
from histo_mlflow.auditing.duplicates import CHECK, near_clusters, near_pairs
from histo_mlflow.auditing.finding import CLEAR, SERIOUS, Finding
from histo_mlflow.tiles.copies import tie_together
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.tile_set import TileSet
from tests.auditing.plants import as_tiles, near_duplicate, texture


def _found(data: TileSet, test: TileSet | None = None) -> dict[str, Finding]:
    return {each.kind: each for each in find_all(look_at(data, test, checks=[CHECK]), [CHECK])}


def test_tiles_that_are_all_different_are_not_accused() -> None:
    found = _found(as_tiles(texture(60)), as_tiles(texture(30, seed=9)))
    assert {each.severity for each in found.values()} == {CLEAR}
    assert len(found) == 6


def test_copies_are_found_with_their_classes_and_all_but_one_is_left_out() -> None:
    images = texture(40)
    images[[5, 7]] = images[[1, 2]]
    labels = np.arange(40) % 2
    labels[5] = 1 - labels[1]
    found = _found(as_tiles(images, labels))
    assert sorted(found["exact_duplicates"].rows) == [1, 2, 5, 7]
    assert sorted(found["exact_duplicates"].exclude) == [5, 7]
    assert found["exact_label_conflicts"].severity == SERIOUS
    assert {1, 5} <= set(found["exact_label_conflicts"].rows)
    assert found["near_duplicates"].severity == CLEAR, "of exact duplicates one stands for all"


def test_a_leak_names_the_tiles_of_data_and_never_those_of_the_test_set() -> None:
    learnt, tested = texture(30), texture(10, seed=5)
    tested[3], tested[4] = learnt[8], learnt[9]
    leak = _found(as_tiles(learnt), as_tiles(tested))["exact_leak"]
    assert leak.severity == SERIOUS
    assert sorted(leak.exclude) == [8, 9]
    assert leak.figures["leak"] == pytest.approx(0.2)


def test_tiles_of_two_sizes_are_compared_too() -> None:
    learnt = texture(30, size=96)
    tested = np.stack([tile[::2, ::2] for tile in texture(30, size=96)[:6]])
    assert _found(as_tiles(learnt), as_tiles(tested))["near_leak"].figures["leak"] > 0.8


def test_clusters_join_what_pairs_join_directly_or_not() -> None:
    of_tile = tie_together(6, np.array([[0, 3], [3, 5]]))
    assert of_tile[0] == of_tile[3] == of_tile[5]
    assert len(np.unique(of_tile)) == 4
    assert len(np.unique(tie_together(3, np.zeros((0, 2), np.int64)))) == 3


def test_the_expected_leak_is_that_of_random_splits() -> None:
    """Four tiles of which two are one: a validation tile of the pair has its copy in training in 80 % of splits."""
    images = texture(4)
    images[1] = images[0]
    assert _found(as_tiles(images))["exact_duplicates"].figures["expected_leak"] == pytest.approx(0.4)


def _score(images: np.ndarray, n_planted: int, seed: int) -> tuple[float, float]:
    generator = np.random.default_rng(seed)
    source = generator.choice(len(images), n_planted, replace=False)
    planted = np.stack([near_duplicate(images[row], generator) for row in source])
    data = as_tiles(np.concatenate([images, planted]))
    pairs = {tuple(pair) for pair in near_pairs(look_at(data, checks=[CHECK])).tolist()}
    true = {(int(row), len(images) + k) for k, row in enumerate(source)}
    known = {tuple(pair) for pair in near_pairs(look_at(as_tiles(images), checks=[CHECK])).tolist()}
    return len(pairs & true) / max(len(pairs - known), 1), len(pairs & true) / len(true)


def test_near_duplicates_of_textures_are_found() -> None:
    precision, recall = _score(texture(120), 60, seed=0)
    assert precision >= 0.95
    assert recall >= 0.95


def test_tiles_that_share_a_bright_corner_only_are_not_accused() -> None:
    """What is coarse decides how alike small tiles look: in each of these pairs the same corner is empty."""
    images, generator = texture(60, size=28), np.random.default_rng(0)
    down, across = np.mgrid[:28, :28] / 28
    for first in range(0, 60, 2):
        angle, place = generator.uniform(0, 2 * np.pi), generator.uniform(0, 0.3)
        is_empty = np.cos(angle) * (down - 0.5) + np.sin(angle) * (across - 0.5) > place
        images[first : first + 2, is_empty] = 240
    assert _found(as_tiles(images[::2]), as_tiles(images[1::2]))["near_leak"].severity == CLEAR


@pytest.mark.parametrize("size", [28, 64, 224])
@pytest.mark.parametrize("name", ["glas_tiles", "crc5/train"])
def test_near_duplicates_of_real_tiles_are_found(real_data: Path, work: Path, name: str, size: int) -> None:
    images = open_tiles(real_data / name).images[:: 3 if size == 224 else 1]
    images = np.stack([cv2.resize(tile, (size, size), interpolation=cv2.INTER_AREA) for tile in images])
    images = images[images.mean(axis=3).std(axis=(1, 2)) > 8]
    precision, recall = _score(images, len(images) // 6, seed=1)
    assert precision >= 0.95, precision
    assert recall >= 0.95, recall


def test_clusters_of_near_duplicates_hold_exact_ones_too() -> None:
    images = texture(20)
    images[4] = images[2]
    images[6] = images[2][:, ::-1]
    data = replace(as_tiles(images))
    of_tile = near_clusters(look_at(data, checks=[CHECK]))
    assert of_tile[2] == of_tile[4] == of_tile[6]
    assert len(np.unique(of_tile)) == 18
