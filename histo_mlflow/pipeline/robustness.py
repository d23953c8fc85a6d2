"""Where a model breaks: what it says of the same tiles after changes that leave the tissue as it is."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from histo_mlflow.evaluation.perturbed import Perturbed
from histo_mlflow.tiles.perturbations import PROTOCOL
from histo_mlflow.tiles.tile_set import TileSet


def choose_tiles(tiles: TileSet, n_tiles: int) -> NDArray[np.int64]:
    """Return at most `n_tiles` positions, the shares of the classes kept; the same ones for every model."""
    if n_tiles >= len(tiles):
        return np.arange(len(tiles))
    rng = np.random.default_rng(0)
    wanted = np.bincount(tiles.labels, minlength=len(tiles.classes)) * n_tiles / len(tiles)
    parts = []
    for label, n in enumerate(wanted):
        own = np.flatnonzero(tiles.labels == label)
        parts.append(rng.choice(own, min(len(own), max(1, round(n))), replace=False) if len(own) else own)
    return np.sort(np.concatenate(parts))


def probe(
    tiles: TileSet, rows: NDArray[np.int64], predict: Callable[[NDArray[np.uint8]], NDArray[np.int64]]
) -> list[Perturbed]:
    """Return what becomes of the predicted classes under each change of the protocol; the first entry is no change.

    Args:
        tiles: The set.
        rows: Which of its tiles are looked at.
        predict: From ``(n_tiles, size, size, 3)`` uint8 to the predicted classes ``(n_tiles,)``.
    """
    images, labels = np.array(tiles.images[rows]), tiles.labels[rows]
    clean = predict(images)
    found = [Perturbed("none", "as stored", labels, clean, clean)]
    changes = [(kind, strength, change) for kind, strengths in PROTOCOL.items() for strength, change in strengths.items()]
    for kind, strength, change in tqdm(changes, desc="robustness", unit="change", disable=None, leave=False):
        found.append(Perturbed(kind, strength, labels, clean, predict(np.stack([change(tile) for tile in images]))))
    return found
