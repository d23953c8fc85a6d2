"""No group of any level and no copies cross a split, whatever the table: tried on tables that Hypothesis makes up."""

import csv
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from histo_mlflow.errors import RequestError
from histo_mlflow.tiles.copies import find_copies, merge_partitions
from histo_mlflow.tiles.options import AUTO, LEVELS, TILE, FoldOptions, HoldOutOptions
from histo_mlflow.tiles.splits import Split, cut_folds, hold_out
from histo_mlflow.tiles.tables import read_tables
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tiles.units import CLUSTER, find_units

_tried = settings(derandomize=True, max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
_seeds = st.integers(0, 2**31)
# What people write into tables: quotes, separators, other scripts, numbers. None that stands for no group at all.
_ids = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=4).filter(
    lambda text: text.lower() not in {"nan", "-nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat"}
)


@st.composite
def _tables(draw: st.DrawFn, *, is_nested: bool | None = None) -> TileSet:
    """Return tiles of 2 or 3 classes with ids at some levels, mostly nested as they should be, and with copies or without."""
    n_tiles = draw(st.integers(6, 60))
    random = np.random.default_rng(draw(_seeds))
    labels = random.integers(0, draw(st.integers(2, 3)), n_tiles)
    chosen = draw(st.lists(st.sampled_from(LEVELS), min_size=1, max_size=4, unique=True))
    nested = draw(st.booleans()) if is_nested is None else is_nested
    levels: dict[str, np.ndarray] = {}
    finer = np.arange(n_tiles)
    for level in reversed([each for each in LEVELS if each in chosen]):
        n_ids = draw(st.integers(2, 20))
        ids = random.integers(0, n_ids, int(finer.max()) + 1)[finer] if nested else random.integers(0, n_ids, n_tiles)
        levels[level] = np.array([f"{level[0]}{each}" for each in ids])
        finer = np.unique(ids, return_inverse=True)[1]
    copies = random.integers(0, n_tiles, n_tiles) if draw(st.booleans()) else None
    if copies is not None:
        copies = np.where(random.random(n_tiles) < draw(st.sampled_from((0.05, 0.3))), copies, n_tiles + np.arange(n_tiles))
    tiles = TileSet(np.zeros((n_tiles, 1, 1, 3), np.uint8), labels, tuple("abc"), None, "made up", "0" * 64, copies=copies)
    return tiles.with_levels({level: levels[level] for level in LEVELS if level in levels})


def _check(split: Split, tiles: TileSet) -> None:
    """Neither the level that was gone by, nor a finer one, nor copies may be on both sides; and every tile is on one."""
    level = split.unit.level
    order = [*LEVELS, CLUSTER]
    kept = [] if level == TILE else [ids for name, ids in tiles.levels.items() if order.index(name) >= order.index(level)]
    for ids in [*kept, *([] if tiles.copies is None else [tiles.copies])]:
        assert not set(ids[split.train.rows].tolist()) & set(ids[split.val.rows].tolist()), level
    assert sorted([*split.train.rows, *split.val.rows]) == list(range(len(tiles)))
    assert set(split.train.labels) == set(tiles.labels), "every class is learnt"


@_tried
@given(tiles=_tables(), split_by=st.sampled_from((AUTO, *LEVELS, TILE)), fraction=st.floats(0.1, 0.6), seed=_seeds)
def test_nothing_that_belongs_together_is_held_out_in_part(tiles: TileSet, split_by: str, fraction: float, seed: int) -> None:
    try:
        split = hold_out(tiles, HoldOutOptions(fraction, split_by=split_by), seed=seed)
    except RequestError:
        event("refused")
        return
    event(f"by {split.unit.level}")
    _check(split, tiles)
    assert split_by in {AUTO, split.unit.level}
    assert set(split.val.labels) == set(tiles.labels)


@_tried
@given(
    tiles=_tables(),
    split_by=st.sampled_from((AUTO, *LEVELS, TILE)),
    folds=st.integers(2, 4) | st.sampled_from(("site", "patient")),
    seed=_seeds,
)
def test_nothing_that_belongs_together_lies_in_two_folds(tiles: TileSet, split_by: str, folds: int | str, seed: int) -> None:
    assume(isinstance(folds, int) or split_by == AUTO)
    try:
        splits = cut_folds(tiles, FoldOptions(folds, split_by=split_by), seed=seed)
    except RequestError:
        event("refused")
        return
    event(f"by {splits[0].unit.level}, {'one each' if isinstance(folds, str) else 'folds'}")
    assert sorted(row for split in splits for row in split.val.rows) == list(range(len(tiles)))
    for split in splits:
        _check(split, tiles)
        assert len(split.val)


@_tried
@given(tiles=_tables(is_nested=True), folds=st.integers(2, 3), seed=_seeds)
def test_auto_goes_by_no_lower_level_than_serves(tiles: TileSet, folds: int, seed: int) -> None:
    """A level that would have put every class into each part, asked for by name, is not passed over for a finer one."""
    try:
        chosen = cut_folds(tiles, FoldOptions(folds), seed=seed)[0].unit.level
    except RequestError:
        assume(False)
    for unit in find_units(tiles, AUTO):
        if unit.level == chosen:
            return
        try:
            splits = cut_folds(tiles, FoldOptions(folds, split_by=unit.level), seed=seed)
        except RequestError:
            continue
        assert any(split.lacks for split in splits), f"{unit.level} serves, and {chosen} was chosen"
    pytest.fail("the level chosen is none that is known")


@_tried
@given(
    partitions=st.integers(1, 30).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 12), min_size=n, max_size=n), min_size=1, max_size=3)
    )
)
def test_merging_ties_what_any_partition_ties_and_nothing_else(partitions: list[list[int]]) -> None:
    merged = merge_partitions([np.array(each) for each in partitions])
    n_tiles = len(merged)
    tied = np.eye(n_tiles, dtype=bool)
    for each in partitions:
        tied |= np.equal.outer(each, each)
    for _ in range(n_tiles):  # the transitive closure, by hand
        tied = tied @ tied
    np.testing.assert_array_equal(np.equal.outer(merged, merged), tied)
    if len(partitions) == 1:
        assert merged.tolist() == np.unique(partitions[0], return_inverse=True)[1].tolist()


@_tried
@given(ids=st.lists(_ids, min_size=1, max_size=12), seed=_seeds, separator=st.sampled_from(",;\t"))
def test_a_table_gives_each_tile_the_id_that_stands_beside_it(ids: list[str], seed: int, separator: str) -> None:
    """Written by Python's csv with whatever separator, in any order, read back as it was."""
    names = [f"a/tile {k}{separator}.png" for k in range(len(ids))]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.csv"
        with file.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.writer(opened, delimiter=separator)
            writer.writerow(["path", "site", "patient"])
            writer.writerows([names[k], "one", ids[k]] for k in np.random.default_rng(seed).permutation(len(ids)))
        table = read_tables(str(file))
        found = table.find_rows(np.array(names), np.array(names))
        assert table.levels(found, np.array(names))["patient"].tolist() == ids


def test_copies_are_found_pixel_by_pixel_and_by_nothing_else(work: Path, tiny_tiles: TileSet) -> None:
    images = tiny_tiles.images[[0, 1, 0, 2, 1, 0]].copy()
    images[5, -1, -1, -1] ^= 1
    labels = np.arange(6, dtype=np.int64)
    tiles = TileSet(images, labels, tuple("abcdef"), None, "made up", "1" * 64)
    assert find_copies(tiles).tolist() == [0, 1, 0, 3, 1, 5]
