"""Below which probability a model leaves a tile to a person: a threshold that validation tiles bear out, or none."""

import numpy as np

from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.ranking import count_down

_ERROR = 0.05
_FIRST_SHARE, _STEP = 1 / 8, 1.1  # of the tiles that the first candidate keeps; from one to the next


def fewest_kept(accuracy: float) -> int:
    """Return how many tiles, all called rightly, show an accuracy with an error of 5 %: 299 for 0.99."""
    return int(np.ceil(np.log(_ERROR) / np.log(accuracy)))


def choose_threshold(predictions: Predictions, *, accuracy: float) -> float | None:
    """Return the lowest probability that keeps tiles of which at least `accuracy` are shown to be right, or None.

    Candidates keep ever more of the tiles, the surest first, beginning with `fewest_kept` or an eighth of all; returned is the
    last before one of which an exact binomial test does not show the accuracy. On new tiles of the same kind what is kept
    then falls below it for at most 5 % of models (fixed sequence testing: Angelopoulos et al. 2021, "Learn then Test", arXiv
    2110.01052). The test takes tiles as independent, which those of one patient are not: with groups there is no threshold.
    """
    if predictions.groups is not None:
        return None
    from scipy.stats import binom

    thresholds, kept, wrong = count_down(predictions.confidence, predictions.is_wrong)
    chosen, wanted = None, max(fewest_kept(accuracy), _FIRST_SHARE * kept[-1])
    while wanted <= kept[-1]:
        at = int(np.searchsorted(kept, wanted))
        if binom.cdf(wrong[at], kept[at], 1 - accuracy) > _ERROR:
            break
        chosen, wanted = float(thresholds[at]), kept[at] * _STEP
    return chosen
