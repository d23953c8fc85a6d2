"""What is shown of each tile: the class that the model names, or that it is not sure; with names and colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.escaping import visible
from histo_mlflow.base.palette import NOT_SURE, class_colours
from histo_mlflow.slides.scored import ScoredSlide

NOT_SURE_NAME = "not sure"


@dataclass(frozen=True)
class Verdicts:
    """The verdict on each tile, as a position in `names`.

    Attributes:
        names: The classes in their order, made harmless; then "not sure" if the model was asked to abstain.
        colours: ``#RRGGBB`` of each.
        of_tiles: ``(n_tiles,)`` int64 positions in `names`.
        has_not_sure: Whether the last name is no class.
    """

    names: tuple[str, ...]
    colours: tuple[str, ...]
    of_tiles: NDArray[np.int64]
    has_not_sure: bool = False


def verdicts_of(scored: ScoredSlide) -> Verdicts:
    """Return what is shown of each tile: "not sure" where the model abstains, whatever class it would name."""
    names, colours = tuple(visible(name) for name in scored.classes), class_colours(len(scored.classes))
    if scored.abstained is None:
        return Verdicts(names, colours, scored.called)
    not_sure = NOT_SURE_NAME if NOT_SURE_NAME not in names else f"{NOT_SURE_NAME} (abstained)"
    of_tiles = np.where(scored.abstained, len(names), scored.called)
    return Verdicts((*names, not_sure), (*colours, NOT_SURE), of_tiles, has_not_sure=True)
