"""What a model said of a slide, tile by tile."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.slides.places import Places


@dataclass(frozen=True)
class ScoredSlide:
    """The tiles of a slide with what a model said of each: all that is written is made from it.

    Attributes:
        name: The slide's file name without its ending.
        size_px: Width and height of level 0.
        microns_per_pixel: Of level 0.
        places: Where the tiles lie.
        classes: Names, in the order of the probabilities.
        probabilities: ``(n_tiles, n_classes)`` float32; rows sum to 1.
        abstained: ``(n_tiles,)`` bool: the model is not sure enough to be asked; None if it was not asked to abstain.
        spread: ``(n_tiles,)`` float32: standard deviation over the symmetries of the probability of the class that is named;
            None if only one view was looked at.
        unreadable: Left and top, in pixels of level 0, of tiles that could not be decoded, and are not among the others.
    """

    name: str
    size_px: tuple[int, int]
    microns_per_pixel: float
    places: Places
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    abstained: NDArray[np.bool_] | None = None
    spread: NDArray[np.float32] | None = None
    unreadable: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.places)

    @property
    def called(self) -> NDArray[np.int64]:
        """``(n_tiles,)``: the class of the highest probability of each tile."""
        called: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return called
