from collections.abc import Sequence
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


def _of_sizes(tiles: TileSet, sizes: Sequence[int], n_classes: int = 3) -> TileSet:
    """Return tiles of groups of these sizes, each with tiles of all classes."""
    groups = np.repeat([f"p{k}" for k in range(len(sizes))], sizes)
    images = np.broadcast_to(tiles.images[:1], (len(groups), *tiles.images.shape[1:]))
    return replace(tiles, images=images, labels=np.arange(len(groups)) % n_classes, groups=groups)


def test_unequal_groups_meet_the_share_and_other_seeds_hold_out_others(tiny_tiles: TileSet) -> None:
    grouped = _of_sizes(tiny_tiles, (100, 60, 40, 30, 20, 20, 15, 10, 5, 5))
    splits = [hold_out(grouped, HoldOutOptions(0.2), seed=seed) for seed in range(6)]
    for split in splits:
        assert len(split.val) == pytest.approx(0.2 * 305, abs=1 + 5), "60 is possible, and 5 the smallest group"
        shares = split.val.count_classes()[:3] / grouped.part("all").count_classes()[:3]
        assert shares == pytest.approx(np.full(3, 0.2), abs=0.05)
    assert len({tuple(split.val.rows) for split in splits}) > 3


def test_many_groups_meet_the_share_class_by_class(tiny_tiles: TileSet) -> None:
    sizes = 1 + np.random.default_rng(0).lognormal(3, 1, 200).astype(int)
    grouped = _of_sizes(tiny_tiles, sizes)
    first, other = (hold_out(grouped, HoldOutOptions(0.2), seed=seed) for seed in (0, 1))
    assert first.val.rows.tolist() != other.val.rows.tolist()
    for split in (first, other):
        shares = split.val.count_classes()[:3] / grouped.part("all").count_classes()[:3]
        assert shares == pytest.approx(np.full(3, 0.2), abs=0.01)


def test_a_rare_class_is_on_both_sides_at_no_cost_to_the_share(tiny_tiles: TileSet) -> None:
    labels = np.repeat([0, 1, 2], [26, 26, 2])
    for groups in (None, (np.arange(54) % 27).astype(str)):
        rare = replace(tiny_tiles, labels=labels, groups=groups)
        for seed in range(20):
            split = hold_out(rare, HoldOutOptions(0.2), seed=seed)
            assert split.val.count_classes()[2] == split.train.count_classes()[2] == 1
            assert len(split.val) == pytest.approx(11, abs=1)


def test_a_class_of_a_single_group_can_not_be_learnt_and_validated(tiny_tiles: TileSet) -> None:
    groups = np.where(tiny_tiles.labels == 0, "one", (np.arange(54) % 7).astype(str))
    with pytest.raises(RequestError, match="class ADI would have no training tile"):
        cut_folds(replace(tiny_tiles, groups=groups), FoldOptions(3), seed=0)
    with pytest.raises(RequestError, match="class ADI can't be on both sides of a split, for its tiles are of 1 of 8 groups"):
        hold_out(replace(tiny_tiles, groups=groups), HoldOutOptions(), seed=0)


def test_one_class_alone_is_refused(tiny_tiles: TileSet) -> None:
    alone = replace(tiny_tiles, labels=np.zeros(54, dtype=np.int64))
    for cut in (lambda: hold_out(alone, HoldOutOptions(), seed=0), lambda: cut_folds(alone, FoldOptions(), seed=0)):
        with pytest.raises(RequestError, match="class ADI alone"):
            cut()
