"""Which tiles a model should leave to a person: risk against coverage, and the threshold below which it abstains."""

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.intervals import Floats


def risk_coverage_curve(confidence: Floats, is_wrong: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return coverage and risk ``(n_thresholds,)``: the share of tiles of at least a confidence, and their error rate."""
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])  # equals are kept or left together
    kept = ends + 1
    return kept / len(confidence), np.cumsum(is_wrong[order])[ends] / kept


def choose_threshold(confidence: Floats, is_wrong: NDArray[np.bool_], *, accuracy: float) -> float | None:
    """Return the lowest confidence down to which at least `accuracy` of the tiles are right, or None if there is none.

    To be chosen on validation tiles; on others the accuracy of what is kept may be lower.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
    good = ends[np.cumsum(is_wrong[order])[ends] <= (1 - accuracy) * (ends + 1) + 1e-9]
    return float(ordered[good[-1]]) if len(good) else None
