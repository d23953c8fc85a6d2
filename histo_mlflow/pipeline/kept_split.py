"""Which tiles a run has learnt from, as ``split.npz`` in the run: written and read here alone."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.tiles.splits import Split
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.runs import Run

_FILE = "split.npz"


def keep_split(run: Run, split: Split) -> None:
    """Keep the positions of the tiles of both parts, ``train`` and ``val``, and the fingerprint of their set."""
    _keep(run, split.tiles, train=split.train.rows, val=split.val.rows)


def keep_folds(run: Run, tiles: TileSet, splits: Sequence[Split]) -> None:
    """Keep in the run of a cross-validation in which fold each tile was held out, from 1, as ``fold``."""
    fold_of_tile = np.zeros(len(tiles), dtype=np.int64)
    for fold, split in enumerate(splits, start=1):
        fold_of_tile[split.val.rows] = fold
    _keep(run, tiles, fold=fold_of_tile)


def kept_rows(run: Run) -> dict[str, NDArray[np.int64]]:
    """Return the positions of the tiles of ``train`` and ``val``, as `keep_split` has kept them; nothing of another run."""
    return run.read(_FILE, _read) if run.has_file(_FILE) else {}


def _keep(run: Run, tiles: TileSet, **positions: NDArray[np.int64]) -> None:
    arrays: dict[str, Any] = {**positions, "fingerprint": np.array(tiles.fingerprint)}
    run.write(_FILE, partial(np.savez_compressed, **arrays))


def _read(file: Path) -> dict[str, NDArray[np.int64]]:
    with np.load(file) as kept:
        return {part: kept[part] for part in ("train", "val") if part in kept}
