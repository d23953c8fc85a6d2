"""The same tissue turned by any angle, cropped, mirrored, overlapping: found by features and local features."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo_mlflow.auditing.finding import CLEAR, UNASKED
from histo_mlflow.auditing.siblings import CHECK, FEWEST_AGREEING, Keypoints, sibling_clusters
from histo_mlflow.auditing.subject import Subject
from histo_mlflow.learning.options import ComputeOptions
from histo_mlflow.models.options import NetworkOptions
from histo_mlflow.pipeline.audit import features_for_audit
from histo_mlflow.tiles.open import open_tiles
from tests.auditing.plants import as_tiles, sibling, stored_anew, texture

_SIZE_PX = 224


def test_a_turned_and_cropped_tile_agrees_and_another_does_not() -> None:
    first, other = texture(2, size=_SIZE_PX)
    relative = Keypoints.of(sibling(first, np.random.default_rng(0)))
    known = Keypoints.of(first)
    assert max(known.count_agreeing(each) for each in (relative, relative.mirrored())) >= 2 * FEWEST_AGREEING
    unrelated = Keypoints.of(other)
    assert max(known.count_agreeing(each) for each in (unrelated, unrelated.mirrored())) < FEWEST_AGREEING / 2


def test_keypoints_of_a_mirrored_tile_need_not_be_found_anew() -> None:
    (tile,) = texture(1, size=_SIZE_PX)
    mirrored = Keypoints.of(tile[:, ::-1])
    assert Keypoints.of(tile).mirrored().count_agreeing(mirrored) > 100
    assert Keypoints.of(tile).count_agreeing(mirrored) < FEWEST_AGREEING


def test_blank_tiles_agree_with_nothing() -> None:
    blank = Keypoints.of(np.full((64, 64, 3), 230, np.uint8))
    assert blank.count_agreeing(blank) == 0


def test_siblings_become_clusters_and_a_leak_is_named() -> None:
    generator = np.random.default_rng(0)
    images = texture(24, size=_SIZE_PX)
    relatives = np.stack([sibling(images[k], generator) for k in range(3)])
    features = generator.standard_normal((27, 16)).astype(np.float32)
    features[24:] = features[:3] + 0.01
    subject = Subject(as_tiles(images), as_tiles(relatives), features=features)
    of_tile = sibling_clusters(subject)
    assert (of_tile[:3] == of_tile[24:]).all()
    assert len(np.unique(of_tile)) == 24
    found = {each.kind: each for each in CHECK.find(subject)}
    assert found["sibling_leak"].exclude.tolist() == [0, 1, 2]
    assert not len(found["sibling_duplicates"].exclude), "they are kept, on one side"


def test_without_features_it_says_that_it_has_not_looked() -> None:
    (found,) = CHECK.find(Subject(as_tiles(texture(4))))
    assert found.severity == UNASKED != CLEAR


def _region(slide: np.ndarray, y: float, x: float, degrees: float) -> np.ndarray:
    """Return the region of a slide around (y, x), turned."""
    reach = _SIZE_PX // 2 + 60
    around = Image.fromarray(slide[int(y) - reach : int(y) + reach, int(x) - reach : int(x) + reach])
    turned = around.rotate(degrees, Image.Resampling.BICUBIC)
    start = reach - _SIZE_PX // 2
    return np.asarray(turned.crop((start, start, start + _SIZE_PX, start + _SIZE_PX)))


def _neighbouring_regions(real_data: Path, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return regions of a polyp, and regions a quarter of a tile away, turned by up to 10 degrees and stained otherwise."""
    Image.MAX_IMAGE_PIXELS, before = None, Image.MAX_IMAGE_PIXELS
    try:
        with Image.open(real_data / "polyp_section" / "section1.tif") as opened:
            opened.seek(1)
            slide = np.asarray(opened.convert("RGB"))
    finally:
        Image.MAX_IMAGE_PIXELS = before
    grid = [(y, x) for y in range(400, len(slide) - 600, 448) for x in range(400, slide.shape[1] - 600, 448)]
    tissue = [(y, x) for y, x in grid if slide[y - 112 : y + 112, x - 112 : x + 112].std() > 30]
    chosen = [tissue[k] for k in generator.permutation(len(tissue))[:n]]
    regions = [_region(slide, y, x, 0) for y, x in chosen]
    near = []
    for y, x in chosen:
        angle = generator.uniform(0, 2 * np.pi)
        found = _region(slide, y + 56 * np.sin(angle), x + 56 * np.cos(angle), generator.uniform(-10, 10))
        near.append(stored_anew(np.clip(found * generator.uniform(0.92, 1.08, 3), 0, 255).astype(np.uint8), 90))
    return np.stack(regions), np.stack(near)


@pytest.mark.slow
def test_planted_siblings_and_neighbouring_regions_of_real_tiles_are_found(
    real_data: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HISTO_CACHE_DIR", os.environ.get("HISTO_TEST_FEATURES", str(work / "cache")))
    generator = np.random.default_rng(3)
    # Of GlaS no two tiles overlap: they are cut side by side from regions that do not.
    apart = np.asarray(open_tiles(real_data / "glas_tiles").images[::3])
    apart = apart[apart.std(axis=(1, 2, 3)) > 15]
    regions, near = _neighbouring_regions(real_data, 30, generator)
    source = generator.choice(len(apart), 90, replace=False)
    planted = np.stack([sibling(apart[row], generator) for row in source])
    tiles = as_tiles(np.concatenate([apart, regions, planted, near]))
    true = [(row, len(apart) + len(regions) + k) for k, row in enumerate(source)]
    true += [(len(apart) + k, len(apart) + len(regions) + len(planted) + k) for k in range(len(regions))]
    features = features_for_audit([tiles], NetworkOptions(backbone="lite0"), ComputeOptions(device="cpu"), 0)
    of_tile = sibling_clusters(Subject(tiles, features=features))
    n_joined = sum(n * (n - 1) // 2 for n in np.bincount(of_tile))
    hits = sum(int(of_tile[first] == of_tile[second]) for first, second in true)
    assert hits / len(true) >= 0.95, "recall"
    assert hits / n_joined >= 0.95, "precision"
