"""Seeded splits that keep class shares, and keep groups whole where groups exist; knows nothing of training."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

from histo_mlflow.errors import OptionError, RequestError
from histo_mlflow.tiles.joining import select
from histo_mlflow.tiles.options import TILE, FoldOptions, HoldOutOptions
from histo_mlflow.tiles.tile_set import Part, TileSet
from histo_mlflow.tiles.units import SplitUnit, find_units
from histo_mlflow.tiles.whole_groups import GroupedTiles

Indices = NDArray[np.int64]


_MOST_OF_SHARE = 2.0  # a higher level is passed over if whole groups hold out over twice what was asked, or less than half


@dataclass(frozen=True, eq=False)
class Split:
    """The training and the validation tiles of one set, in the order of the set and without overlap.

    `test`, tiles of another set, is watched and never selected on. `unit` is what lies on one side only.
    """

    train: Part
    val: Part
    test: Part | None = None
    unit: SplitUnit = field(default_factory=SplitUnit)

    @classmethod
    def of(cls, tiles: TileSet, train: Indices, val: Indices) -> "Split":
        """Return the split of `tiles` with the training and the validation tiles at these positions."""
        return cls(tiles.part("train", train), tiles.part("val", val))

    @property
    def tiles(self) -> TileSet:
        """The set that is split."""
        return self.train.tiles

    @property
    def lacks(self) -> list[tuple[str, str]]:
        """Classes that a side has no tile of: their names, and ``training`` or ``validation``."""
        labels, names = self.tiles.labels, self.tiles.classes
        sides = {"training": self.train, "validation": self.val}
        return [(names[k], side) for side, part in sides.items() for k in np.setdiff1d(labels, part.labels)]


def hold_out(tiles: TileSet, options: HoldOutOptions, *, seed: int) -> Split:
    """Return one stratified split with each class on both sides; with groups, the nearest that whole groups allow.

    Raises:
        OptionError: `val_fraction` leaves fewer tiles than classes on a side, or `split_by` is not known of these tiles.
        RequestError: A class is in too few tiles or groups to be on both sides.
    """
    _check_counts(tiles, needed=2, why="validation needs at least one tile and training another")

    def attempt(unit: SplitUnit) -> list[Split]:
        val = _choose_tiles(tiles, unit, options, seed) if unit.level == TILE else _choose_groups(tiles, unit, options, seed)
        return [_checked(_apart(tiles, val, unit), sides=("training", "validation"))]

    def serves(splits: list[Split]) -> bool:
        share = len(splits[0].val) / len(tiles) / options.val_fraction
        return 1 / _MOST_OF_SHARE <= share <= _MOST_OF_SHARE

    return _first_that_serves(tiles, options.split_by, attempt, serves)[0]


def set_aside(part: Part, fraction: float, *, seed: int) -> tuple[Part, Part]:
    """Return about that share of the tiles of a part, called ``aside``, and its other tiles; raises as `hold_out`."""
    split = hold_out(select(part.tiles, part.rows), HoldOutOptions(fraction), seed=seed)
    return part.tiles.part("aside", part.rows[split.val.rows]), part.tiles.part(part.name, part.rows[split.train.rows])


def cut_folds(tiles: TileSet, options: FoldOptions, *, seed: int) -> list[Split]:
    """Return the stratified folds; every tile is in the validation part of exactly one.

    Raises:
        OptionError: `split_by`, or the level that `folds` names, is not known of these tiles.
        RequestError: A class has fewer tiles, or the data has fewer groups, than there are folds.
    """
    folds = options.folds
    if isinstance(folds, str):
        _check_counts(tiles, needed=2, why="a fold needs at least one tile and the others another")
        (unit,) = find_units(tiles, folds)
        return [_checked(split) for split in _one_each(tiles, unit)]
    _check_counts(tiles, needed=folds, why=f"folds={folds} needs at least one for each: use fewer folds")

    def attempt(unit: SplitUnit) -> list[Split]:
        parts = _by_tile(tiles, unit, folds, seed) if unit.level == TILE else _grouped(tiles, unit, folds, seed)
        return [_checked(_apart(tiles, val, unit)) for val in parts]

    return _first_that_serves(tiles, options.split_by, attempt, lambda splits: not any(split.lacks for split in splits))


def _first_that_serves(
    tiles: TileSet, split_by: str, attempt: Callable[[SplitUnit], list[Split]], serves: Callable[[list[Split]], bool]
) -> list[Split]:
    """Return the splits by the highest level that serves; if none does by the highest that is possible at all.

    Raises what `attempt` raises if no level is possible.
    """
    possible: list[list[Split]] = []
    refused: list[str] = []
    failure: RequestError | None = None
    for unit in find_units(tiles, split_by):
        try:
            splits = attempt(replace(unit, refused=tuple(refused)))
        except RequestError as error:
            failure = error
        else:
            possible.append(splits)
            if serves(splits):
                return splits
        refused.append(f"{unit.level} ({unit.n_named} of them)")
    if not possible:
        assert failure is not None  # there is at least one unit
        raise failure
    return possible[0]


def _originals(tiles: TileSet, unit: SplitUnit) -> Indices:
    """Return the positions of the tiles that are split when each is its own unit; copies go with them."""
    return np.arange(len(tiles)) if unit.ids is None else np.sort(np.unique(unit.ids, return_index=True)[1])


def _with_copies(chosen: Indices, unit: SplitUnit) -> Indices:
    return chosen if unit.ids is None else np.flatnonzero(np.isin(unit.ids, unit.ids[chosen]))


def _by_tile(tiles: TileSet, unit: SplitUnit, folds: int, seed: int) -> Iterator[Indices]:
    originals = _originals(tiles, unit)
    labels = tiles.labels[originals]
    if (counts := np.bincount(labels))[counts > 0].min() < folds:
        raise RequestError(f"{tiles.source}: without copies a class has fewer tiles than folds={folds}: use fewer folds")
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for _, val in splitter.split(labels, labels):
        yield _with_copies(originals[val], unit)


def _choose_tiles(tiles: TileSet, unit: SplitUnit, options: HoldOutOptions, seed: int) -> Indices:
    originals = _originals(tiles, unit)
    labels = tiles.labels[originals]
    counts = np.bincount(labels)
    n_classes = int((counts > 0).sum())
    if (alone := np.flatnonzero(counts == 1)).size:
        raise RequestError(f"{tiles.source}: all tiles of class {tiles.classes[alone[0]]} are copies of one; add tiles of it")
    n_val = round(len(originals) * options.val_fraction)
    if not n_classes <= n_val <= len(originals) - n_classes:
        raise OptionError(
            f"val_fraction={options.val_fraction} of {len(originals)} tiles leaves {n_val} for validation and "
            f"{len(originals) - n_val} for training; each of the {n_classes} classes needs one in both: change it"
        )
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=n_val, random_state=seed)
    train, val = next(splitter.split(labels, labels))
    _give_each_class(labels, train, val)
    _give_each_class(labels, val, train)
    return _with_copies(originals[val], unit)


def _give_each_class(labels: Indices, giver: Indices, taker: Indices) -> None:
    """Exchange tiles, in place, until `taker` has one of each class of `giver`: the shuffle rounds rare ones to none."""
    for label in np.setdiff1d(labels[giver], labels[taker]):
        commonest = np.bincount(labels[taker]).argmax()
        given, back = np.flatnonzero(labels[giver] == label)[0], np.flatnonzero(labels[taker] == commonest)[0]
        giver[given], taker[back] = taker[back], giver[given]


def _choose_groups(tiles: TileSet, unit: SplitUnit, options: HoldOutOptions, seed: int) -> Indices:
    assert unit.ids is not None
    names, group_of_tile = np.unique(unit.ids, return_inverse=True)
    present, class_of_tile = np.unique(tiles.labels, return_inverse=True)
    counts = np.zeros((len(names), len(present)), dtype=np.int64)
    np.add.at(counts, (group_of_tile, class_of_tile), 1)
    grouped = GroupedTiles(counts, options.val_fraction)
    chosen = grouped.hold_out(seed)
    if chosen is None:
        label = grouped.class_at_fault()
        raise RequestError(
            f"{tiles.source}: class {tiles.classes[present[label]]} can't be on both sides of a split, for its tiles are of "
            f"{(counts[:, label] > 0).sum()} of {len(names)} groups, and groups stay whole: add groups, or leave it out"
        )
    return np.flatnonzero(chosen[group_of_tile])


def _grouped(tiles: TileSet, unit: SplitUnit, parts: int, seed: int) -> Iterator[Indices]:
    assert unit.ids is not None
    n_groups = len(np.unique(unit.ids))
    if n_groups < parts:
        raise RequestError(f"{tiles.source} has {n_groups} groups, too few for {parts} parts: use fewer folds or more groups")
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    for _, val in splitter.split(tiles.labels, tiles.labels, unit.ids):
        yield val


def _one_each(tiles: TileSet, unit: SplitUnit) -> list[Split]:
    """Return a fold for each unit, which is its validation part."""
    assert unit.ids is not None
    if not unit.ids.any():
        raise RequestError(
            f"{tiles.source}: all tiles are of one {unit.level}, or of some that share tiles or patients; folds={unit.level} "
            "needs at least two"
        )
    return [_apart(tiles, np.flatnonzero(unit.ids == number), unit) for number in range(int(unit.ids.max()) + 1)]


def _apart(tiles: TileSet, val: Indices, unit: SplitUnit) -> Split:
    """Return the split with the validation tiles at these positions; all others are training tiles."""
    return replace(Split.of(tiles, np.setdiff1d(np.arange(len(tiles)), val), np.sort(val)), unit=unit)


def _checked(split: Split, *, sides: tuple[str, ...] = ("training",)) -> Split:
    """Return `split`, or raise if a class would have no tile on one of the sides, as when all its tiles are of one group."""
    for name, side in split.lacks:
        if side in sides:
            raise RequestError(
                f"{split.tiles.source}: class {name} would have no {side} tile, because it is in too few groups; "
                "use fewer folds, another seed or more groups"
            )
    return split


def _check_counts(tiles: TileSet | Part, *, needed: int, why: str) -> None:
    counts = {name: count for name, count in tiles.class_counts().items() if count}
    if len(counts) < 2:
        raise RequestError(f"{tiles.source} has tiles of class {' '.join(counts)} alone; at least two classes are needed")
    for name, count in counts.items():
        if count < needed:
            raise RequestError(f"{tiles.source} has {count} tile(s) of class {name}; {why}, or add tiles")
