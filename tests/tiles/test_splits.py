from dataclasses import replace

import numpy as np
import pytest

from histo_mlflow.errors import OptionError, RequestError
from histo_mlflow.tiles.options import FoldOptions, HoldOutOptions
from histo_mlflow.tiles.splits import cut_folds, hold_out
from histo_mlflow.tiles.tile_set import TileSet


def test_folds_cover_every_tile_once_and_keep_class_shares(tiny_tiles: TileSet) -> None:
    folds = cut_folds(tiny_tiles, FoldOptions(3), seed=0)
    assert sorted(np.concatenate([fold.val.rows for fold in folds]).tolist()) == list(range(54))
    for fold in folds:
        assert not set(fold.train.rows) & set(fold.val.rows)
        assert np.bincount(tiny_tiles.labels[fold.val.rows]).tolist() == [2] * 9


def test_hold_out_is_stratified_and_seeded(tiny_tiles: TileSet) -> None:
    first, again, other = (hold_out(tiny_tiles, HoldOutOptions(1 / 3), seed=seed) for seed in (0, 0, 1))
    assert first.val.rows.tolist() == again.val.rows.tolist() != other.val.rows.tolist()
    assert np.bincount(tiny_tiles.labels[first.val.rows]).tolist() == [2] * 9


@pytest.mark.parametrize("seed", range(5))
def test_groups_never_cross_a_split(tiny_tiles: TileSet, seed: int) -> None:
    groups = np.random.default_rng(seed).integers(12, size=54).astype(str)
    grouped = replace(tiny_tiles, groups=groups)
    splits = [*cut_folds(grouped, FoldOptions(3), seed=seed), hold_out(grouped, HoldOutOptions(0.3), seed=seed)]
    for split in splits:
        assert not set(groups[split.train.rows]) & set(groups[split.val.rows])
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


def test_grouped_fraction_is_met(tiny_tiles: TileSet) -> None:
    grouped = replace(tiny_tiles, groups=(np.arange(54) // 2).astype(str))
    for fraction in (0.2, 0.4, 0.7):
        split = hold_out(grouped, HoldOutOptions(fraction), seed=0)
        assert len(split.val) / 54 == pytest.approx(fraction, abs=0.12)


def test_a_class_of_a_single_group_can_not_be_learnt_and_validated(tiny_tiles: TileSet) -> None:
    groups = np.where(tiny_tiles.labels == 0, "one", (np.arange(54) % 7).astype(str))
    with pytest.raises(RequestError, match="class ADI would have no training tile"):
        cut_folds(replace(tiny_tiles, groups=groups), FoldOptions(3), seed=0)


def test_one_class_alone_is_refused(tiny_tiles: TileSet) -> None:
    alone = replace(tiny_tiles, labels=np.zeros(54, dtype=np.int64))
    for cut in (lambda: hold_out(alone, HoldOutOptions(), seed=0), lambda: cut_folds(alone, FoldOptions(), seed=0)):
        with pytest.raises(RequestError, match="class ADI alone"):
            cut()
