"""Perceptual hashes: 63 signs of low frequencies of a tile, and those of its eight symmetries without turning it once.

The discrete cosine transform of a mirrored tile has the same coefficients with the odd ones negated, and that of a transposed
one has them transposed. So the hash of all eight follows from one (Zauner 2010 describes the hash; here the sign takes the
place of the median, for a median does not mirror).
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats32 = NDArray[np.float32]

N_FREQUENCIES = 8
_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's "L"


class Symmetry(NamedTuple):
    """One of the eight symmetries of a square: transposed or not, then mirrored top-bottom and left-right or not."""

    transposed: bool
    mirrored_down: bool
    mirrored_across: bool

    def of_tiles(self, tiles: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return tiles ``(n, size, size)`` or ``(n, size, size, 3)`` so changed."""
        tiles = np.swapaxes(tiles, 1, 2) if self.transposed else tiles
        return tiles[:, :: -1 if self.mirrored_down else 1, :: -1 if self.mirrored_across else 1]

    def of_coefficients(self, coefficients: Floats32) -> Floats32:
        """Return the coefficients ``(n, 8, 8)`` that the tiles so changed have."""
        signs = np.where(np.arange(N_FREQUENCIES) % 2, -1.0, 1.0).astype(np.float32)
        changed = np.swapaxes(coefficients, 1, 2) if self.transposed else coefficients
        changed = changed * signs[:, None] if self.mirrored_down else changed
        return changed * signs if self.mirrored_across else changed


SYMMETRIES = tuple(Symmetry(bool(k & 4), bool(k & 2), bool(k & 1)) for k in range(8))
"""The first leaves a tile as it is."""


def grey(tiles: NDArray[np.uint8]) -> Floats32:
    """Return the brightness ``(n, size, size)`` of tiles, 0 to 255."""
    return tiles.astype(np.float32) @ _WEIGHTS


def coefficients(brightness: Floats32) -> Floats32:
    """Return the lowest 8 x 8 coefficients ``(n, 8, 8)`` of the cosine transform, in grey levels."""
    across = _basis(brightness.shape[2])
    down = _basis(brightness.shape[1])
    return np.asarray(down @ (brightness @ across.T), dtype=np.float32)


def pack(coefficients: Floats32) -> NDArray[np.uint8]:
    """Return the hash of each tile, ``(n, 8)`` bytes: a bit for each coefficient, 1 if it is positive; the mean counts as 0."""
    bits = coefficients.reshape(len(coefficients), -1) > 0
    bits[:, 0] = False
    return np.packbits(bits, axis=1)


def contrast(coefficients: Floats32) -> Floats32:
    """Return the root mean square ``(n,)`` of the coefficients without the mean: how much a hash has to go by."""
    squares = coefficients.reshape(len(coefficients), -1)[:, 1:] ** 2
    return np.asarray(np.sqrt(squares.mean(axis=1)))


@cache
def _basis(size: int) -> Floats32:
    places = (np.arange(size) + 0.5) / size
    return np.asarray(np.cos(np.pi * np.outer(np.arange(N_FREQUENCIES), places)) / size, dtype=np.float32)
