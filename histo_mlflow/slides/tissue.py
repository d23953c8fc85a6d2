"""Where on a slide there is tissue."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tissue:
    """A mask over a whole slide.

    Attributes:
        mask: ``(height, width)`` bool: true where there is tissue.
        downsample: Pixels of level 0 that make one of the mask.
    """

    mask: NDArray[np.bool_]
    downsample: float
