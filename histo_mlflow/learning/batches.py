"""Tiles of a memory map or of a stream as uint8 batches on the device, ahead of their use; does not know what it is."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histo_mlflow.tiles.pixels import Pixels

_N_AHEAD = 2  # batches that are ready or being gathered while one is computed with
_RESIDENT_SHARE = 0.5  # of the free memory of a GPU; the rest is for activations, which grow with the batch


def batch_rows(rows: NDArray[np.int64], batch_size: int, *, smallest: int = 2) -> list[NDArray[np.int64]]:
    """Return `rows` cut into batches; a last batch below `smallest` joins its neighbour, for batch norm needs two values."""
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    if len(batches) > 1 and len(batches[-1]) < smallest:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


class TileSource:
    """Tiles of an array, ready to be asked for in batches.

    Those of `resident_rows` are put on a GPU once if it has room, for many epochs. Otherwise a background thread gathers the
    next batches from the memory map while the device computes; for a GPU into pinned memory, from which copies run beside the
    computation.
    """

    def __init__(self, images: Pixels, device: torch.device, *, resident_rows: NDArray[np.int64] | None = None) -> None:
        self._images = images
        self._device = device
        self._resident: Tensor | None = None
        if resident_rows is not None and device.type == "cuda":
            n_free_bytes, _ = torch.cuda.mem_get_info(device)
            if len(resident_rows) * images[:1].nbytes <= _RESIDENT_SHARE * n_free_bytes:
                self._make_resident(resident_rows)

    def _make_resident(self, rows: NDArray[np.int64]) -> None:
        shape = (len(rows), *self._images.shape[1:])
        self._resident = torch.empty(shape, dtype=torch.uint8, device=self._device)
        self._position = np.full(len(self._images), -1)
        self._position[rows] = np.arange(len(rows))
        block = 1024
        for start in range(0, len(rows), block):
            self._resident[start : start + block] = torch.from_numpy(self._images[rows[start : start + block]])

    def load(self, batches: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        """Yield the tiles of each batch of rows as ``(n_tiles, height, width, 3)`` uint8 on the device, in order."""
        if self._resident is None:
            yield from load_ahead((self._images[rows] for rows in batches), self._device)
            return
        for rows in batches:
            positions = torch.from_numpy(self._position[rows])
            yield self._resident[positions.to(self._device, non_blocking=True)]


def load_ahead(blocks: Iterable[NDArray[np.generic]], device: torch.device) -> Generator[Tensor, None, None]:
    """Yield each block on the device, in order; a thread makes the next two meanwhile, the only one that asks for them."""
    coming = iter(blocks)

    def make() -> Tensor | None:
        block = next(coming, None)
        if block is None:
            return None
        tiles = torch.from_numpy(block)
        return tiles.pin_memory() if device.type == "cuda" else tiles

    with ThreadPoolExecutor(1, thread_name_prefix="gather-tiles") as pool:
        making: deque[Future[Tensor | None]] = deque(pool.submit(make) for _ in range(_N_AHEAD))
        try:
            while (tiles := making.popleft().result()) is not None:
                making.append(pool.submit(make))
                yield tiles.to(device, non_blocking=True)
        finally:
            for waiting in making:
                waiting.cancel()
