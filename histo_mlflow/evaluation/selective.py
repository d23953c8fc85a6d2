"""Which tiles a model should leave to a person: risk against coverage, and the threshold below which it abstains."""

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.intervals import Floats


def risk_coverage_curve(confidence: Floats, is_wrong: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return coverage and risk ``(n_thresholds,)``: the share of tiles of at least a confidence, and their error rate."""
    _, kept, wrong = _count_down(confidence, is_wrong)
    return kept / len(confidence), wrong / kept


def choose_threshold(confidence: Floats, is_wrong: NDArray[np.bool_], *, accuracy: float) -> float | None:
    """Return the lowest confidence down to which at least `accuracy` of the tiles are right, or None if there is none.

    To be chosen on validation tiles; on others the accuracy of what is kept may be lower.
    """
    thresholds, kept, wrong = _count_down(confidence, is_wrong)
    good = np.flatnonzero(wrong <= (1 - accuracy) * kept + 1e-9)
    return float(thresholds[good[-1]]) if len(good) else None


def _count_down(confidence: Floats, is_wrong: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Return each confidence that occurs, from the highest down, with the tiles and the wrong ones of at least that."""
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])  # equals are kept or left together
    return ordered[ends], ends + 1, np.cumsum(is_wrong[order], dtype=np.int64)[ends]
