"""Seeded splits that keep class shares, and keep groups whole where groups exist; knows nothing of training."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

from histo_mlflow.errors import OptionError, RequestError
from histo_mlflow.tiles.options import FoldOptions, HoldOutOptions
from histo_mlflow.tiles.tile_set import Part, TileSet

Indices = NDArray[np.int64]

_MAX_GROUP_PARTS = 20


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
    """Return one stratified split; with groups, the nearest that whole groups allow."""
    _check_counts(tiles, needed=2, why="validation needs at least one tile and training another")
    if tiles.groups is not None:
        return _hold_out_groups(tiles, tiles.groups, options.val_fraction, seed)
    n_classes = int((np.bincount(tiles.labels) > 0).sum())
    n_val = round(len(tiles) * options.val_fraction)
    if not n_classes <= n_val <= len(tiles) - n_classes:
        raise OptionError(
            f"val_fraction={options.val_fraction} of {len(tiles)} tiles leaves {n_val} for validation and "
            f"{len(tiles) - n_val} for training; each of the {n_classes} classes needs one in both: change it"
        )
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=n_val, random_state=seed)
    train, val = next(splitter.split(tiles.labels, tiles.labels))
    return Split.of(tiles, np.sort(train), np.sort(val))


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


def _hold_out_groups(tiles: TileSet, groups: NDArray[np.str_], val_fraction: float, seed: int) -> Split:
    """Return the union of as many small grouped parts as come nearest to `val_fraction`."""
    smallest_class = min(count for count in tiles.class_counts().values() if count)
    parts = max(2, min(len(np.unique(groups)), smallest_class, _MAX_GROUP_PARTS))
    n_val_parts = min(max(1, round(val_fraction * parts)), parts - 1)
    folds = _grouped(tiles, groups, parts, seed)
    val = np.sort(np.concatenate([next(folds).val.rows for _ in range(n_val_parts)]))
    return _checked(Split.of(tiles, np.setdiff1d(np.arange(len(tiles)), val), val))


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


def _check_counts(tiles: TileSet, *, needed: int, why: str) -> None:
    counts = {name: count for name, count in tiles.class_counts().items() if count}
    if len(counts) < 2:
        raise RequestError(f"{tiles.source} has tiles of class {' '.join(counts)} alone; at least two classes are needed")
    for name, count in counts.items():
        if count < needed:
            raise RequestError(f"{tiles.source} has {count} tile(s) of class {name}; {why}, or add tiles")
