"""Where tiles lie on a slide: squares in pixels of its finest level."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Places:
    """Squares on a slide, row by row from the top left.

    Attributes:
        left: ``(n_tiles,)`` int64, in pixels of level 0; likewise `top`.
        top: See `left`.
        edge_px: Their edge length in pixels of level 0.
        stride_px: From one to the next in pixels of level 0, before rounding; the edge, if tiles do not overlap.
    """

    left: NDArray[np.int64]
    top: NDArray[np.int64]
    edge_px: int
    stride_px: float

    def __len__(self) -> int:
        return len(self.left)

    def at(self, rows: NDArray[np.int64]) -> "Places":
        """Return the squares at the positions `rows`."""
        return Places(self.left[rows], self.top[rows], self.edge_px, self.stride_px)
