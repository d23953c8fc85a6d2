"""Tiles that are copies of one another, pixel for pixel, and what they have in common with groups; knows nothing of splits."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from histo_mlflow.base.progress import Bar
from histo_mlflow.tiles.cache import cache_key, recall, remember
from histo_mlflow.tiles.tile_set import TileSet

_BLOCK_TILES = 256
_SECONDS_WITHOUT_A_BAR = 1


def find_copies(tiles: TileSet) -> NDArray[np.int64]:
    """Return a number for each tile, ``(n_tiles,)``, the same for tiles of the same pixels; the cache keeps them."""
    key = cache_key("copies", tiles.fingerprint)
    found = np.arange(len(tiles))
    kept = recall(key).get("clusters")
    if kept is None:
        digests = _digests(tiles)
        _, first, number = np.unique(digests, return_index=True, return_inverse=True)
        found = first[number]
        copied = np.flatnonzero(np.bincount(found, minlength=len(tiles))[found] > 1)
        remember(key, {"clusters": [copied.tolist(), found[copied].tolist()]})
        return found
    rows, firsts = kept
    found[rows] = firsts
    return found


def digest_each(block: NDArray[np.generic]) -> list[bytes]:
    """Return a SHA-256 of each tile of a block, by which copies are known."""
    return [hashlib.sha256(np.ascontiguousarray(tile).data).digest() for tile in block]


def _digests(tiles: TileSet) -> NDArray[np.bytes_]:
    """Return a SHA-256 of the pixels of each tile."""

    def of_block(start: int) -> list[bytes]:
        return digest_each(tiles.images[start : start + _BLOCK_TILES])

    starts = range(0, len(tiles), _BLOCK_TILES)
    with ThreadPoolExecutor(cpu_count()) as pool:
        blocks = pool.map(of_block, starts)
        bar = Bar(blocks, total=len(starts), desc="copies", unit="block", delay=_SECONDS_WITHOUT_A_BAR)
        return np.array([digest for block in bar for digest in block], dtype=np.dtype("S32"))


def tie_together(n: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for each of `n` things, ``(n,)``, the same for those that `pairs` ``(m, 2)`` tie, directly or not."""
    graph = coo_array((np.ones(len(pairs), dtype=np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def merge_partitions(partitions: Sequence[NDArray[np.generic]]) -> NDArray[np.int64]:
    """Return a number for each tile, ``(n_tiles,)``, the same for tiles that the partitions tie together, directly or not.

    Groups of the first partition keep their order: where the others add nothing, the numbers are those of its sorted ids.
    """
    numbered = [np.unique(partition, return_inverse=True)[1] for partition in partitions]
    n_tiles = len(numbered[0])
    # A node for each tile, and one for each part of each partition, to which its tiles are tied.
    offsets = n_tiles + np.cumsum([0, *(int(each.max()) + 1 for each in numbered)])
    parts = np.concatenate([each + offset for each, offset in zip(numbered, offsets, strict=False)])
    pairs = np.column_stack([np.tile(np.arange(n_tiles), len(numbered)), parts])
    component = tie_together(int(offsets[-1]), pairs)[:n_tiles]
    _, component = np.unique(component, return_inverse=True)
    least = np.full(int(component.max()) + 1, n_tiles)
    np.minimum.at(least, component, numbered[0])
    return np.asarray(np.argsort(np.argsort(least, kind="stable"), kind="stable")[component], dtype=np.int64)
