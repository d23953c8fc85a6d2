"""What holds of every split, whatever the sizes of classes and groups: tried on sets that Hypothesis makes up."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from histo_mlflow.errors import RequestError
from histo_mlflow.tiles.options import FoldOptions, HoldOutOptions
from histo_mlflow.tiles.splits import Split, cut_folds, hold_out
from histo_mlflow.tiles.tile_set import TileSet

_tried = settings(derandomize=True, max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
_seeds = st.integers(0, 2**31)
_fractions = st.floats(0.05, 0.95)


def _tiles(labels: np.ndarray, groups: np.ndarray | None) -> TileSet:
    """Return tiles of one pixel: a split looks at labels and groups alone."""
    classes = tuple(f"class {k}" for k in range(labels.max() + 1))
    return TileSet(np.zeros((len(labels), 1, 1, 3), np.uint8), labels, classes, groups, "made up", "0" * 64)


@st.composite
def _grouped(draw: st.DrawFn, max_groups: int = 14) -> TileSet:
    """Return tiles of 2 to 5 classes, of one or all of which each group may hold tiles."""
    n_classes = draw(st.integers(2, 5))
    of_class = st.integers(0, 9) | st.sampled_from((0, 0, 0, 40))
    rows = st.lists(of_class, min_size=n_classes, max_size=n_classes).filter(any)
    counts = np.array(draw(st.lists(rows, min_size=2, max_size=max_groups)))
    groups, labels = (np.repeat(place, counts.ravel()) for place in np.indices(counts.shape).reshape(2, -1))
    assume(len(np.unique(labels)) > 1)
    order = np.random.default_rng(draw(_seeds)).permutation(len(labels))
    return _tiles(labels[order], groups[order].astype(str))


_ungrouped = st.lists(st.integers(1, 30) | st.just(2), min_size=2, max_size=6).map(
    lambda counts: _tiles(np.repeat(np.arange(len(counts)), counts), None)
)


def _feasible(tiles: TileSet, fraction: float) -> np.ndarray:
    """Return by how many tiles each choice of groups with every class on both sides misses `fraction`."""
    names, group_of_tile = np.unique(tiles.groups, return_inverse=True)
    counts = np.stack(
        [np.bincount(tiles.labels[group_of_tile == k], minlength=tiles.labels.max() + 1) for k in range(len(names))]
    )
    counts = counts[:, counts.sum(axis=0) > 0]
    held = (np.arange(2 ** len(names))[:, None] >> np.arange(len(names)) & 1) @ counts
    held = held[((held > 0) & (held < counts.sum(axis=0))).all(axis=1)]
    return np.abs(held.sum(axis=1) - fraction * len(tiles))


def _check_sides(split: Split) -> None:
    tiles = split.tiles
    assert np.sort(np.concatenate([split.train.rows, split.val.rows])).tolist() == list(range(len(tiles)))
    assert set(split.train.labels) == set(split.val.labels) == set(tiles.labels)
    if tiles.groups is not None:
        assert not set(split.train.groups) & set(split.val.groups)


@_tried
@given(tiles=_grouped(), fraction=_fractions, seed=_seeds)
def test_whole_groups_are_held_out_as_near_to_the_share_as_they_allow(tiles: TileSet, fraction: float, seed: int) -> None:
    possible = _feasible(tiles, fraction)
    if not len(possible):
        with pytest.raises(RequestError, match=r"class class \d"):
            hold_out(tiles, HoldOutOptions(fraction), seed=seed)
        return
    split = hold_out(tiles, HoldOutOptions(fraction), seed=seed)
    _check_sides(split)
    smallest = np.unique(tiles.groups, return_counts=True)[1].min()
    assert abs(len(split.val) - fraction * len(tiles)) <= possible.min() + smallest + 1e-9
    assert hold_out(tiles, HoldOutOptions(fraction), seed=seed).val.rows.tolist() == split.val.rows.tolist()


@_tried
@given(tiles=_ungrouped, fraction=_fractions, seed=_seeds)
def test_without_groups_the_share_is_met_and_rare_classes_are_on_both_sides(tiles: TileSet, fraction: float, seed: int) -> None:
    n_val, n_classes = round(fraction * len(tiles)), len(tiles.classes)
    lone = [name for name, count in tiles.class_counts().items() if count == 1]
    is_impossible = not n_classes <= n_val <= len(tiles) - n_classes
    if lone or is_impossible:
        with pytest.raises(RequestError, match=f"1 tile\\(s\\) of class {lone[0]}" if lone else "classes needs one in both"):
            hold_out(tiles, HoldOutOptions(fraction), seed=seed)
        return
    split = hold_out(tiles, HoldOutOptions(fraction), seed=seed)
    _check_sides(split)
    assert len(split.val) == n_val
    assert hold_out(tiles, HoldOutOptions(fraction), seed=seed).val.rows.tolist() == split.val.rows.tolist()


@_tried
@given(tiles=_grouped(), folds=st.integers(2, 4), seed=_seeds)
def test_folds_keep_groups_whole_and_teach_every_class(tiles: TileSet, folds: int, seed: int) -> None:
    try:
        splits = cut_folds(tiles, FoldOptions(folds), seed=seed)
    except RequestError:
        assume(False)
    assert np.sort(np.concatenate([split.val.rows for split in splits])).tolist() == list(range(len(tiles)))
    for split in splits:
        assert len(split.val)
        assert not set(split.train.groups) & set(split.val.groups)
        assert set(split.train.labels) == set(tiles.labels)
    again = cut_folds(tiles, FoldOptions(folds), seed=seed)
    assert [split.val.rows.tolist() for split in again] == [split.val.rows.tolist() for split in splits]
