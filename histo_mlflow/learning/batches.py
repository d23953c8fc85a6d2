"""Rows of a memory map as uint8 batches on the device; knows nothing of what is done with them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LabelledTiles:
    """Some rows of an array of tiles.

    Attributes:
        images: ``(n_stored, height, width, 3)`` uint8.
        labels: ``(n_stored,)`` int64.
        rows: ``(n_tiles,)`` int64, which of the stored tiles are meant.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def batch_rows(rows: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Return `rows` cut into batches; a last batch of one joins its neighbour, for batch norm needs two values."""
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


def load_batches(images: NDArray[np.uint8], batches: list[NDArray[np.int64]], device: torch.device) -> Iterator[Tensor]:
    """Yield the tiles of each batch as ``(n_tiles, height, width, 3)`` uint8 on `device`, in order."""
    for rows in batches:
        yield torch.from_numpy(images[rows]).to(device, non_blocking=True)
