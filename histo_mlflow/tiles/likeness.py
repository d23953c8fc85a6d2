"""Clusters of tiles that look alike, for sets of which nobody knows the patients; they are likeness, not patients."""

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from histo_mlflow.base.progress import Bar
from histo_mlflow.tiles.tile_set import TileSet

_TILES_PER_CLUSTER = 25
_FEWEST, _MOST = 5, 40  # clusters of a class
_EDGE_PX = 32
_BLOCK = 256
_SECONDS_WITHOUT_A_BAR = 1


def cluster_by_colour(tiles: TileSet) -> NDArray[np.str_]:
    """Return the cluster of each tile, ``(n_tiles,)``: of the tiles of a class, those of like colour.

    Slides differ in their stain, so that tiles of like colour are more often of one slide than others; many slides share a
    cluster, and a slide has tiles in many. Classes are clustered one by one, since they differ in colour more than slides do.
    The vectors are mean and standard deviation of the optical density of red, green and blue; of tiles that come as features,
    these.
    """
    vectors = np.asarray(tiles.images, dtype=np.float64) if tiles.encoder else _colours(tiles)
    clusters = np.empty(len(tiles), dtype=np.dtype("U64"))
    for label, name in enumerate(tiles.classes):
        rows = np.flatnonzero(tiles.labels == label)
        if not len(rows):
            continue
        own = vectors[rows]
        n_clusters = min(len(np.unique(own, axis=0)), max(_FEWEST, min(_MOST, len(rows) // _TILES_PER_CLUSTER)))
        scaled = (own - own.mean(axis=0)) / np.maximum(own.std(axis=0), 1e-6)
        found = MiniBatchKMeans(n_clusters, random_state=0, n_init=3, batch_size=4096).fit_predict(scaled)
        clusters[rows] = [f"{name[:48]}-{number}" for number in found]
    return clusters


def _colours(tiles: TileSet) -> NDArray[np.float64]:
    step = max(1, tiles.tile_size_px // _EDGE_PX)
    found = []
    starts = range(0, len(tiles), _BLOCK)
    for start in Bar(starts, desc="colours", unit="block", delay=_SECONDS_WITHOUT_A_BAR):
        density = -np.log((np.asarray(tiles.images[start : start + _BLOCK, ::step, ::step], dtype=np.float64) + 1) / 256)
        found.append(np.concatenate([density.mean(axis=(1, 2)), density.std(axis=(1, 2))], axis=1))
    return np.concatenate(found)
