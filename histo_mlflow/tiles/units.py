"""What a split keeps on one side: the levels from site to tile, and copies; knows nothing of how a split is drawn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import OptionError
from histo_mlflow.tiles.copies import merge_partitions
from histo_mlflow.tiles.options import AUTO, LEVELS, REGION, TILE
from histo_mlflow.tiles.tile_set import TileSet

CLUSTER = "cluster"
"""The level of clusters of like tiles, which are not patients."""

OPTIMISTIC = "tile-level split: optimistic"

_PLURALS = {
    "site": "sites",
    "patient": "patients",
    "group": "groups (patients or slides)",
    "slide": "slides",
    "region": "regions",
}


@dataclass(frozen=True, eq=False)
class SplitUnit:
    """What stays on one side of a split.

    Attributes:
        level: One of `LEVELS`, `REGION`, `CLUSTER` or ``tile``.
        ids: ``(n_tiles,)`` int64; tiles of the same number stay together. None if nothing has to.
        n_named: How many of the level there are, before those that share a tile were put together.
        n_copies: Tiles that are copies of another.
        refused: Higher levels that were tried first, with how many there are of each.
        are_patients_known: Whether the set has levels, whatever the split goes by.
    """

    level: str = TILE
    ids: NDArray[np.int64] | None = None
    n_named: int = 0
    n_copies: int = 0
    refused: tuple[str, ...] = ()
    are_patients_known: bool = False

    def describe(self) -> str:
        """Return what is kept together, in words."""
        copies = f"; {self.n_copies} copies lie on the side of their originals" if self.n_copies else ""
        if self.level == TILE and self.are_patients_known:
            return f"the tile, as asked for, so tiles of one patient or slide may lie on both sides ({OPTIMISTIC}){copies}"
        if self.level == TILE:
            why = "no patients or slides are known, so tiles of one slide may lie on both sides"
            return f"the tile; {why} ({OPTIMISTIC}){copies}"
        if self.level == CLUSTER:
            return (
                f"the cluster of like colour, {self.n_named} of them: clusters of likeness, not patients, so tiles of a slide "
                f"may lie on both sides ({OPTIMISTIC}){copies}"
            )
        assert self.ids is not None
        n_units = int(self.ids.max()) + 1
        merged = f", in {n_units} sets because some share tiles, slides or patients" if n_units < self.n_named else ""
        higher = f"; not {' or '.join(self.refused)}, too few to part the classes as asked" if self.refused else ""
        one_slide = " (regions of one slide lie on both sides: optimistic)" if self.level == REGION else ""
        side = f"each on one side only{one_slide}"
        return f"the {self.level}, {self.n_named} {_PLURALS[self.level]}, {side}{merged}{higher}{copies}"


def find_units(tiles: TileSet, split_by: str) -> list[SplitUnit]:
    """Return what a split may go by, from coarse to fine: the level asked for, or all that are known; of none, the tile.

    Regions are among these only if all tiles are of one slide, or if they are asked for: several slides are something better.
    A level keeps all finer ones together, and copies too: what any of them share is joined.

    Raises:
        OptionError: The level asked for is not known of these tiles.
    """
    levels = tiles.known_levels
    n_copies = 0 if tiles.copies is None else len(tiles) - len(np.unique(tiles.copies))
    by_tile = SplitUnit(TILE, tiles.copies if n_copies else None, len(tiles), n_copies, (), are_patients_known=bool(levels))
    if split_by == TILE or (split_by == AUTO and not levels):
        return [by_tile]
    has_many = any(len(np.unique(ids)) > 1 for level, ids in levels.items() if level != REGION)
    asked = [level for level in levels if level != REGION or not has_many] if split_by == AUTO else [split_by]
    if split_by not in {AUTO, *levels}:
        known = f"it has {' and '.join(levels)}" if levels else "it has no groups at all"
        raise OptionError(
            f"split_by={split_by}: {tiles.source} does not say the {split_by} of its tiles, {known}; name it by groups="
        )
    order = [level for level in (*LEVELS, REGION, CLUSTER) if level in levels]
    copies = [] if tiles.copies is None else [tiles.copies]
    units = []
    for level in (each for each in order if each in asked):
        ids = merge_partitions([*(levels[finer] for finer in order[order.index(level) :]), *copies])
        units.append(SplitUnit(level, ids, len(np.unique(levels[level])), n_copies, (), are_patients_known=True))
    return units
