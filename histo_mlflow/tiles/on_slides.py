"""Where tiles lie on the slides that they were cut from; knows nothing of files and pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLIDES, LEFT, TOP, EDGE = "slides", "left", "top", "edge"
"""What the arrays of an ``.npz`` are called."""


@dataclass(frozen=True, eq=False)
class OnSlides:
    """Slide and place of each tile of a set.

    Attributes:
        slides: ``(n_tiles,)`` names of the slides.
        left: ``(n_tiles,)`` int64, in pixels of level 0; likewise `top` and `edge`.
        top: See `left`.
        edge: Edge length of the square that the tile shows.
    """

    slides: NDArray[np.str_]
    left: NDArray[np.int64]
    top: NDArray[np.int64]
    edge: NDArray[np.int64]

    @property
    def names(self) -> NDArray[np.str_]:
        """``(n_tiles,)``, what the tiles are called: ``SLIDE/LEFT_TOP``, so that a table of slides finds them."""
        places = np.strings.add(np.strings.add(self.left.astype(np.str_), "_"), self.top.astype(np.str_))
        return np.strings.add(np.strings.add(self.slides, "/"), places)

    def at(self, rows: NDArray[np.int64]) -> "OnSlides":
        """Return slide and place of the tiles at the positions `rows`."""
        return OnSlides(self.slides[rows], self.left[rows], self.top[rows], self.edge[rows])


def join_places(parts: Sequence[OnSlides | None]) -> OnSlides | None:
    """Return slides and places of several sets, one behind the other; None if one of them does not know."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return OnSlides(
        np.concatenate([part.slides for part in known]),
        np.concatenate([part.left for part in known]),
        np.concatenate([part.top for part in known]),
        np.concatenate([part.edge for part in known]),
    )
