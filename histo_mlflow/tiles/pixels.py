"""Pixels or features of many tiles, indexed as one array wherever they lie; knows nothing of files, labels and names."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Pixels(Protocol):
    """``(n_tiles, height, width, 3)`` uint8, or features: an array, a memory map, or several of them seen as one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As an array has it."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """As an array has it."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> NDArray[Any]: ...


class JoinedTiles:
    """Tiles of one or several arrays in any order, which are copied when they are asked for and not before.

    Attributes:
        parts: The arrays, whose tiles are of one size.
        dtype: As the arrays have it.
    """

    def __init__(
        self, parts: Sequence[Pixels], part_of: NDArray[np.int64], row_of: NDArray[np.int64], middle_px: int = 0
    ) -> None:
        """Take tile ``row_of[k]`` of the array ``part_of[k]`` as tile k; of each only the middle, if `middle_px` is given."""
        self.parts = tuple(parts)
        self.dtype = self.parts[0].dtype
        self._part_of, self._row_of = part_of, row_of
        stored_px = self.parts[0].shape[1]
        self._size_px = middle_px or stored_px
        start = (stored_px - self._size_px) // 2
        middle = slice(start, start + self._size_px)
        self._middle = (middle,) * min(2, len(self.parts[0].shape) - 1)  # of features, which have one axis, all

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_tiles, height, width, 3)`` or ``(n_tiles, n_features)``."""
        return (len(self._row_of), *(self._size_px for _ in self._middle), *self.parts[0].shape[3:])

    def __len__(self) -> int:
        return len(self._row_of)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Return what an array would, as a copy; the first index may be a number, a slice, rows or a mask."""
        wanted, within = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        part_of, row_of = np.atleast_1d(self._part_of[wanted]), np.atleast_1d(self._row_of[wanted])
        if len(self.parts) == 1:
            tiles = self.parts[0][row_of][:, *self._middle]
        else:
            tiles = np.empty((len(row_of), *self.shape[1:]), self.dtype)
            for number, part in enumerate(self.parts):
                if len(here := np.flatnonzero(part_of == number)):
                    tiles[here] = part[row_of[here]][:, *self._middle]
        return np.asarray(tiles[0][within] if np.ndim(self._row_of[wanted]) == 0 else tiles[(slice(None), *within)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all tiles in memory; they are not there without a copy."""
        if copy is False:
            raise ValueError("these tiles lie in several places; they can't be one array without a copy")
        return np.asarray(self[:], dtype=dtype)

    def select(self, rows: NDArray[np.int64]) -> "JoinedTiles":
        """Return the tiles at the positions `rows`."""
        return JoinedTiles(self.parts, self._part_of[rows], self._row_of[rows], self._size_px)

    def middle(self, size_px: int) -> "JoinedTiles":
        """Return the middle of each tile."""
        return JoinedTiles(self.parts, self._part_of, self._row_of, size_px)

    def places(self) -> bytes:
        """Return which tiles of which parts these are, and how much of each."""
        return b"".join((self._part_of.tobytes(), self._row_of.tobytes(), self._size_px.to_bytes(4)))


def join_pixels(parts: Sequence[Pixels]) -> JoinedTiles:
    """Return the tiles of all parts, one part after the other."""
    part_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return JoinedTiles(parts, part_of, np.concatenate([np.arange(len(part)) for part in parts]))


def as_joined(images: Pixels) -> JoinedTiles:
    """Return the tiles as an array from which some can be selected without a copy."""
    return images if isinstance(images, JoinedTiles) else join_pixels([images])


def parts_of(images: Pixels) -> tuple[Pixels, ...]:
    """Return the arrays in which the tiles lie."""
    return images.parts if isinstance(images, JoinedTiles) else (images,)
