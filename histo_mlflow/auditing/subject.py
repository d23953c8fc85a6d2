"""What is audited: one set of tiles, or two that are asked about together, and what was measured of each tile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.tiles.tile_set import TileSet

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Subject:
    """Tiles of one set or of two, one behind the other: a tile's position counts through both.

    Attributes:
        data: The set to learn from.
        test: The set to be tested on, or None.
        measures: ``(n_tiles, ...)`` by name, what the checks have asked of the pixels.
        features: ``(n_tiles, n_features)`` of a frozen backbone, or None.
        predictions: Out-of-fold predictions of a run for the tiles of `data`, or None.
        seed: Of what is drawn at random.
    """

    data: TileSet
    test: TileSet | None = None
    measures: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    features: NDArray[np.float32] | None = None
    predictions: Predictions | None = None
    seed: int = 0

    def __len__(self) -> int:
        return sum(map(len, self.sets.values()))

    @cached_property
    def sets(self) -> dict[str, TileSet]:
        """The sets by the option that names them."""
        return {"data": self.data} | ({} if self.test is None else {"test_data": self.test})

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """All class names, those of `data` first."""
        return tuple(dict.fromkeys(name for tiles in self.sets.values() for name in tiles.classes))

    @cached_property
    def labels(self) -> Rows:
        """``(n_tiles,)``, positions in `classes`."""
        return np.concatenate(
            [np.array([self.classes.index(name) for name in tiles.classes])[tiles.labels] for tiles in self.sets.values()]
        )

    @cached_property
    def is_test(self) -> NDArray[np.bool_]:
        """``(n_tiles,)``, whether a tile is of the test set."""
        return np.arange(len(self)) >= len(self.data)

    @cached_property
    def names(self) -> NDArray[np.str_]:
        """``(n_tiles,)``, what the tiles are called in their set."""
        return np.concatenate([tiles.names for tiles in self.sets.values()])

    @property
    def groups(self) -> NDArray[np.str_] | None:
        """``(n_data_tiles,)`` ids of patient or slide of the tiles of `data`, or None."""
        return self.data.groups

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """Return a tile, ``(size, size, 3)``."""
        tiles, within = (self.data, row) if row < len(self.data) else (self.test or self.data, row - len(self.data))
        return np.asarray(tiles.images[within])

    def class_of(self, row: int) -> str:
        """Return the name of a tile's class."""
        return str(self.classes[self.labels[row]])

    def describe(self, row: int) -> str:
        """Return what is written below a tile: its class, name and set."""
        where = "test: " if self.is_test[row] else ""
        return f"{self.class_of(row)} · {where}{self.names[row]}"

    @cached_property
    def files(self) -> list[Path | None]:
        """The file of each tile, or None where it is part of an array or can't be found."""
        return [_file_of(tiles, str(name)) for tiles in self.sets.values() for name in tiles.names]

    def by_class(self, rows: Rows) -> dict[str, int]:
        """Return how many of the tiles at `rows` are of each class, in class order, classes without any left out."""
        counts = np.bincount(self.labels[rows], minlength=len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, counts, strict=True) if count}


def _file_of(tiles: TileSet, name: str) -> Path | None:
    if tiles.given_names is None:
        return None
    # Of several sources that were joined a name begins with its own.
    return next((file for file in (Path(tiles.source) / name, Path(name)) if file.is_file()), None)
