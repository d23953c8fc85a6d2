"""One pass over the pixels of a set, block by block on all cores, for everything that checks ask of them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from os import cpu_count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.auditing.finding import Check, Measures
from histo_mlflow.base.progress import Bar
from histo_mlflow.tiles.mapped import check_unchanged
from histo_mlflow.tiles.tile_set import TileSet

_BLOCK_PIXELS = 2**21
"""About 40 tiles of 224 px: a block and what is computed of it fit into the cache of a core, more or less."""


def measure(tiles: TileSet, checks: Sequence[Check]) -> dict[str, NDArray[Any]]:
    """Return what `checks` ask of the pixels of `tiles`, arrays ``(n_tiles, ...)`` by name.

    Threads share the blocks: nearly all of the work is in NumPy, OpenCV and hashing, which release the interpreter lock.

    Raises:
        TilesChangedError: The file of the tiles was changed meanwhile.
    """
    size = max(1, _BLOCK_PIXELS // tiles.tile_size_px**2)
    starts = range(0, len(tiles), size)
    asked = [check.measure for check in checks if check.measure is not None]

    def measure_block(start: int) -> Measures:
        block = np.asarray(tiles.images[start : start + size])
        found: dict[str, NDArray[Any]] = {}
        for ask in asked:
            found |= ask(block)
        return found

    with (
        ThreadPoolExecutor(cpu_count()) as pool,
        Bar[None](total=len(tiles), unit="tile", desc="look at tiles") as bar,
    ):
        waiting = iter(starts)
        # Few at a time: blocks that wait for their turn would be in memory.
        running = [pool.submit(measure_block, start) for start in islice(waiting, 2 * (cpu_count() or 1))]
        parts: list[Measures] = []
        while running:
            parts.append(running.pop(0).result())
            running += [pool.submit(measure_block, start) for start in islice(waiting, 1)]
            bar.update(size)
    check_unchanged(tiles.images)
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else {})}
