"""Figures that depend on the order of scores: AUROC, average precision, risk and coverage, calibration error.

Functions of counts ``(n, n_tiles)``, how often each tile counts in each of `n` resamples (ones for the set itself), return one
value per resample, so that value and jackknife come from the same lines. Tests hold them to scikit-learn.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.confusion import ratio
from histo_mlflow.evaluation.intervals import Floats, Weights

N_BINS = 15
"""Bins of confidence for calibration errors, of equal width (Guo et al. 2017)."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """Scores in falling order, with the marked tiles among them.

    Attributes:
        order: ``(n_tiles,)``, from the highest score to the lowest.
        scores: ``(n_tiles,)`` in that order.
        is_marked: ``(n_tiles,)`` in that order: of the class, or wrong.
        first, last: ``(n_tiles,)``: where the tiles of the same score begin and end.
    """

    order: NDArray[np.int64]
    scores: Floats
    is_marked: NDArray[np.bool_]
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Floats, is_marked: NDArray[np.bool_]) -> "Ranked":
        """Sort `scores` ``(n_tiles,)``, of which `is_marked` names some."""
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        begins = np.r_[True, ordered[1:] != ordered[:-1]]
        starts = np.flatnonzero(begins)
        ends = np.r_[starts[1:], len(ordered)] - 1
        tie = np.cumsum(begins) - 1
        return cls(order, ordered, is_marked[order], starts[tie], ends[tie])


def auroc_and_precision(ranked: Ranked, counts: Weights) -> tuple[Floats, Floats]:
    """Return the area under the ROC curve and the average precision of the marked tiles, each ``(n,)``.

    AUROC is the chance that a marked tile scores above an unmarked one, ties counting half (Hanley and McNeil 1982). Average
    precision is the mean precision at the scores of the marked tiles, without interpolation, as in scikit-learn.
    NaN where there is no marked, for AUROC also where there is no unmarked tile.
    """
    marked = np.flatnonzero(ranked.is_marked)
    in_order = counts[:, ranked.order]
    own = in_order[:, marked]
    in_order[:, marked] = 0
    unmarked_up_to = _running_sum(in_order)
    marked_up_to = _running_sum(own)
    n_marked, n_unmarked = marked_up_to[:, -1], unmarked_up_to[:, -1]
    last, first = ranked.last[marked], ranked.first[marked]
    beaten_by = unmarked_up_to[:, last + 1]  # unmarked tiles that score as high or higher
    ties = beaten_by - unmarked_up_to[:, first]
    won = (own * (n_unmarked[:, None] - beaten_by + ties / 2)).sum(axis=1, dtype=np.float64)
    auroc = ratio(won, n_marked.astype(np.float64) * n_unmarked)
    n_true = marked_up_to[:, np.searchsorted(marked, last, side="right")]
    precision = n_true / np.maximum(n_true + beaten_by, 1)
    return auroc, ratio((own * precision).sum(axis=1, dtype=np.float64), n_marked)


def risk_and_coverage(ranked: Ranked, counts: Weights, *, accuracy: float) -> tuple[Floats, Floats]:
    """Return the area under the risk-coverage curve and the coverage at an accuracy, each ``(n,)``.

    `ranked` holds confidences, with the wrong tiles marked. The area is the mean, over tiles, of the error rate among all tiles
    that are at least as confident (Geifman et al. 2019, "Bias-reduced uncertainty estimation for deep neural classifiers").
    The coverage is the largest share of tiles, the most confident ones, of which at least `accuracy` are right.
    """
    in_order = counts[:, ranked.order]
    n = in_order.sum(axis=1, dtype=np.float64)
    kept = _running_sum(in_order)[:, ranked.last + 1]
    wrong = _running_sum(in_order * ranked.is_marked)[:, ranked.last + 1]
    area = ratio((in_order * (wrong / np.maximum(kept, 1))).sum(axis=1, dtype=np.float64), n)
    is_good = wrong <= (1 - accuracy) * kept + 1e-4
    return area, np.where(is_good, kept, 0).max(axis=1) / n


def risk_coverage_curve(confidence: Floats, is_wrong: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return coverage and risk ``(n_thresholds,)``: the share of tiles of at least a confidence, and their error rate."""
    _, kept, wrong = count_down(confidence, is_wrong)
    return kept / len(confidence), wrong / kept


def count_down(confidence: Floats, is_wrong: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Return each confidence that occurs, from the highest down, with the tiles and the wrong ones of at least that."""
    ranked = Ranked.of(confidence, is_wrong)
    ends = np.unique(ranked.last)  # equals are kept or left together
    return ranked.scores[ends], ends + 1, np.cumsum(ranked.is_marked, dtype=np.int64)[ends]


def calibration_error(ranked: Ranked, counts: Weights) -> Floats:
    """Return the expected calibration error ``(n,)``: the mean over tiles of |share of marked tiles - mean score| in their bin.

    Source: Naeini et al. 2015; with 15 bins of equal width as in Guo et al. 2017, "On calibration of modern neural networks".
    """
    in_order = counts[:, ranked.order]
    bins = bin_of(ranked.scores)
    starts = np.flatnonzero(np.r_[True, bins[1:] != bins[:-1]])
    # A running sum would lose the small differences in single precision.
    differences = np.add.reduceat(in_order * (ranked.is_marked - ranked.scores), starts, axis=1)
    return ratio(np.abs(differences).sum(axis=1), in_order.sum(axis=1, dtype=np.float64))


def bin_of(scores: Floats) -> NDArray[np.int64]:
    """Return the bin of each score, 0 to `N_BINS` - 1; a score on an edge belongs to the bin below."""
    return np.clip(np.ceil(scores * N_BINS).astype(np.int64) - 1, 0, N_BINS - 1)


def _running_sum(counts: Weights) -> Weights:
    """Return ``(n, n_tiles + 1)``: the sum before each tile; whole numbers, exact in single precision up to 16 million."""
    sums = np.zeros((counts.shape[0], counts.shape[1] + 1), dtype=np.float32)
    np.cumsum(counts, axis=1, out=sums[:, 1:])
    return sums
