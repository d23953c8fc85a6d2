"""Seeded splits that keep class shares, and keep groups whole where groups exist; knows nothing of training."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

from histo_mlflow.errors import OptionError, RequestError
from histo_mlflow.tiles.options import FoldOptions, HoldOutOptions
from histo_mlflow.tiles.tile_set import Part, TileSet
from histo_mlflow.tiles.whole_groups import GroupedTiles

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """The training and the validation tiles of one set, in the order of the set and without overlap.

    `test`, tiles of another set, is watched and never selected on.
    """

    train: Part
    val: Part
    test: Part | None = None

    @classmethod
    def of(cls, tiles: TileSet, train: Indices, val: Indices) -> "Split":
        """Return the split of `tiles` with the training and the validation tiles at these positions."""
        return cls(tiles.part("train", train), tiles.part("val", val))

    @property
    def tiles(self) -> TileSet:
        """The set that is split."""
        return self.train.tiles


def hold_out(tiles: TileSet, options: HoldOutOptions, *, seed: int) -> Split:
    """Return one stratified split with each class on both sides; with groups, the nearest that whole groups allow.

    Raises:
        OptionError: `val_fraction` leaves fewer tiles than classes on a side.
        RequestError: A class is in too few tiles or groups to be on both sides.
    """
    _check_counts(tiles, needed=2, why="validation needs at least one tile and training another")
    val = _choose(tiles, options, seed)
    return Split.of(tiles, np.setdiff1d(np.arange(len(tiles)), val), val)


def set_aside(part: Part, fraction: float, *, seed: int) -> tuple[Part, Part]:
    """Return about that share of the tiles of a part, called ``aside``, and its other tiles; raises as `hold_out`."""
    _check_counts(part, needed=2, why="two parts are made of these tiles")
    chosen = _choose(part, HoldOutOptions(fraction), seed)
    others = np.setdiff1d(np.arange(len(part)), chosen)
    return part.tiles.part("aside", part.rows[chosen]), part.tiles.part(part.name, part.rows[others])


def cut_folds(tiles: TileSet, options: FoldOptions, *, seed: int) -> list[Split]:
    """Return the stratified folds; every tile is in the validation part of exactly one.

    Raises:
        RequestError: A class has fewer tiles, or the data has fewer groups, than there are folds.
    """
    _check_counts(tiles, needed=options.folds, why=f"folds={options.folds} needs at least one for each: use fewer folds")
    if tiles.groups is not None:
        return [_checked(split) for split in _grouped(tiles, tiles.groups, options.folds, seed)]
    splitter = StratifiedKFold(options.folds, shuffle=True, random_state=seed)
    return [Split.of(tiles, train, val) for train, val in splitter.split(tiles.labels, tiles.labels)]


def _choose(tiles: TileSet | Part, options: HoldOutOptions, seed: int) -> Indices:
    return _choose_tiles(tiles, options, seed) if tiles.groups is None else _choose_groups(tiles, tiles.groups, options, seed)


def _choose_tiles(tiles: TileSet | Part, options: HoldOutOptions, seed: int) -> Indices:
    n_classes = int((np.bincount(tiles.labels) > 0).sum())
    n_val = round(len(tiles) * options.val_fraction)
    if not n_classes <= n_val <= len(tiles) - n_classes:
        raise OptionError(
            f"val_fraction={options.val_fraction} of {len(tiles)} tiles leaves {n_val} for validation and "
            f"{len(tiles) - n_val} for training; each of the {n_classes} classes needs one in both: change it"
        )
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=n_val, random_state=seed)
    train, val = next(splitter.split(tiles.labels, tiles.labels))
    _give_each_class(tiles.labels, train, val)
    _give_each_class(tiles.labels, val, train)
    return np.sort(val)


def _give_each_class(labels: Indices, giver: Indices, taker: Indices) -> None:
    """Exchange tiles, in place, until `taker` has one of each class of `giver`: the shuffle rounds rare ones to none."""
    for label in np.setdiff1d(labels[giver], labels[taker]):
        commonest = np.bincount(labels[taker]).argmax()
        given, back = np.flatnonzero(labels[giver] == label)[0], np.flatnonzero(labels[taker] == commonest)[0]
        giver[given], taker[back] = taker[back], giver[given]


def _choose_groups(tiles: TileSet | Part, groups: NDArray[np.str_], options: HoldOutOptions, seed: int) -> Indices:
    names, group_of_tile = np.unique(groups, return_inverse=True)
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


def _grouped(tiles: TileSet, groups: NDArray[np.str_], parts: int, seed: int) -> Iterator[Split]:
    n_groups = len(np.unique(groups))
    if n_groups < parts:
        raise RequestError(f"{tiles.source} has {n_groups} groups, too few for {parts} parts: use fewer folds or more groups")
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    for train, val in splitter.split(tiles.labels, tiles.labels, groups):
        yield Split.of(tiles, train, val)


def _checked(split: Split) -> Split:
    """Return `split`, or raise if a class would have no training tile, as when all its tiles are of one group."""
    tiles = split.tiles
    missing = np.setdiff1d(tiles.labels, split.train.labels)
    if len(missing):
        raise RequestError(
            f"{tiles.source}: class {tiles.classes[missing[0]]} would have no training tile, because it is in too few groups; "
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
