from dataclasses import replace

import numpy as np
import pytest

from histo_mlflow.errors import OptionError, RequestError
from histo_mlflow.tiles.splits import FoldOptions, HoldOutOptions, cut_folds, hold_out
from histo_mlflow.tiles.tile_set import TileSet


def test_folds_cover_every_tile_once_and_keep_class_shares(tiny_tiles: TileSet) -> None:
    folds = cut_folds(tiny_tiles, FoldOptions(3), seed=0)
    assert sorted(np.concatenate([fold.val for fold in folds]).tolist()) == list(range(54))
    for fold in folds:
        assert not set(fold.train) & set(fold.val)
        assert np.bincount(tiny_tiles.labels[fold.val]).tolist() == [2] * 9


def test_hold_out_is_stratified_and_seeded(tiny_tiles: TileSet) -> None:
    first, again, other = (hold_out(tiny_tiles, HoldOutOptions(1 / 3), seed=seed) for seed in (0, 0, 1))
    assert first.val.tolist() == again.val.tolist() != other.val.tolist()
    assert np.bincount(tiny_tiles.labels[first.val]).tolist() == [2] * 9


@pytest.mark.parametrize("seed", range(5))
def test_groups_never_cross_a_split(tiny_tiles: TileSet, seed: int) -> None:
    groups = np.random.default_rng(seed).integers(12, size=54).astype(str)
    grouped = replace(tiny_tiles, groups=groups)
    splits = [*cut_folds(grouped, FoldOptions(3), seed=seed), hold_out(grouped, HoldOutOptions(0.3), seed=seed)]
    for split in splits:
        assert not set(groups[split.train]) & set(groups[split.val])
        assert len(split.train) + len(split.val) == 54


def test_too_few_tiles_or_groups_for_the_folds(tiny_tiles: TileSet) -> None:
    with pytest.raises(RequestError, match=r"6 tile\(s\) of class ADI; folds=7"):
        cut_folds(tiny_tiles, FoldOptions(7), seed=0)
    with pytest.raises(RequestError, match="has 2 groups"):
        cut_folds(replace(tiny_tiles, groups=(np.arange(54) % 2).astype(str)), FoldOptions(3), seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_fraction_must_lie_between_0_and_1(fraction: float) -> None:
    with pytest.raises(OptionError, match="val_fraction"):
        HoldOutOptions(fraction)


def test_fraction_that_leaves_a_class_out(tiny_tiles: TileSet) -> None:
    with pytest.raises(OptionError, match="leaves 3 for validation"):
        hold_out(tiny_tiles, HoldOutOptions(0.05), seed=0)
