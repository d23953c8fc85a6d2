"""Curves of each class drawn into axes: for the pictures beside a page, and for the figures in it; makes no picture itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from histo_mlflow.base.palette import OF_CLASSES
from histo_mlflow.evaluation.calibration import Bin, reliability
from histo_mlflow.evaluation.intervals import Estimate, Floats
from histo_mlflow.evaluation.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUIET = "#5d6875"
TRAIN, VAL, TEST = "#6b6b6b", "#0b5394", "#b34700"
_GUIDE = "#9aa4af"

# With each colour of the palette, so that classes are told apart in grey too.
_DASHES: tuple[tuple[float, ...], ...] = (
    (), (5, 2), (1.5, 1.5), (7, 2, 1.5, 2), (3, 1, 1, 1, 1, 1), (10, 2), (2, 4), (8, 2, 3, 2), (1, 1),
)  # fmt: skip
_MAX_POINTS = 500
_FOUND = 0.95  # share of its tiles that each class has found where the zoomed axis ends


def style_of(class_index: int) -> dict[str, Any]:
    """Return colour and dashes of a class, as matplotlib takes them."""
    dashes = _DASHES[class_index % len(_DASHES)]
    return {"color": OF_CLASSES[class_index % len(OF_CLASSES)], "linestyle": (0, dashes) if dashes else "-"}


def swatch_of(class_index: int) -> Mapping[str, str]:
    """Return the same as SVG has them: ``stroke`` and ``stroke-dasharray``."""
    dashes = " ".join(f"{1.5 * each:g}" for each in _DASHES[class_index % len(_DASHES)])
    return {"colour": OF_CLASSES[class_index % len(OF_CLASSES)], "dashes": dashes or "none"}


def plot_roc(axes: Axes, predictions: Predictions, names: Sequence[str], *, is_zoomed: bool = False) -> None:
    """Draw the ROC of each class against all others; zoomed, the axes are cut to where the curves are."""
    from sklearn.metrics import roc_curve

    curves = []
    for k in _scorable(predictions):
        false_positive, sensitivity, _ = roc_curve(predictions.labels == k, predictions.probabilities[:, k])
        curves.append((false_positive, sensitivity))
        axes.plot(*thinned(false_positive, sensitivity), **style_of(k), linewidth=1.6, label=names[k])
    axes.plot([0, 1], [0, 1], color=_GUIDE, linewidth=0.8)
    dress_unit(axes, "1 - specificity", "sensitivity", "ROC")
    if is_zoomed and curves:
        end = min(1.0, max(0.02, 1.15 * max(float(x[np.argmax(y >= _FOUND)]) for x, y in curves)))
        start = max(0.0, min(float(y[x <= 0.05 * end].max()) for x, y in curves) - 0.05)
        _cut(axes, end if end < 0.7 else 1.0, start if start > 0.2 else 0.0)


def plot_precision(axes: Axes, predictions: Predictions, names: Sequence[str], *, is_zoomed: bool = False) -> None:
    """Draw the precision-recall curve of each class against all others; zoomed, the PPV begins where the curves do."""
    from sklearn.metrics import precision_recall_curve

    lowest = 1.0
    for k in _scorable(predictions):
        precision, recall, _ = precision_recall_curve(predictions.labels == k, predictions.probabilities[:, k])
        lowest = min(lowest, float(precision[recall <= _FOUND].min()))
        axes.plot(*thinned(recall, precision), **style_of(k), linewidth=1.6, label=names[k])
    dress_unit(axes, "sensitivity (recall)", "PPV (precision)", "Precision and recall")
    if is_zoomed:
        _cut(axes, 1.0, lowest - 0.05 if lowest > 0.25 else 0.0)


def plot_reliability(axes: Axes, as_is: Predictions, other: Predictions | None, *, other_label: str) -> None:
    """Draw the reliability diagram of the predicted class; `other` is drawn too if given."""
    axes.plot([0, 1], [0, 1], color=_GUIDE, linewidth=0.8)
    drawn = [(as_is, VAL, "o", "as the model says it")] + ([(other, TEST, "s", other_label)] if other is not None else [])
    for predictions, colour, marker, label in drawn:
        _draw_bins(axes, reliability(predictions.confidence, ~predictions.is_wrong), colour, marker, label)
    bins = reliability(as_is.confidence, ~as_is.is_wrong)
    for b in bins:
        axes.bar(b.mean_score, 0.16 * b.n / max(each.n for each in bins), width=0.04, color="#d5dee9", zorder=0)
    dress_unit(axes, "probability of the predicted class", "share that is right", "Predicted class (bars: number of tiles)")
    axes.legend(frameon=False, fontsize="small", loc="upper left")


def plot_class_reliability(axes: Axes, predictions: Predictions, names: Sequence[str]) -> None:
    """Draw the reliability diagram of each class."""
    axes.plot([0, 1], [0, 1], color=_GUIDE, linewidth=0.8)
    for k, name in enumerate(names):
        bins = [b for b in reliability(predictions.probabilities[:, k], predictions.labels == k) if b.n >= 5]
        scores, shares = [b.mean_score for b in bins], [b.share.value for b in bins]
        axes.plot(scores, shares, **style_of(k), marker=".", linewidth=1.3, label=name)
    dress_unit(axes, "probability of the class", "share that is of the class", "Each class (bins of at least 5 tiles)")


def shares_and_reach(estimates: Sequence[Estimate]) -> tuple[Floats, Floats]:
    """Return the values ``(n,)`` and how far their intervals reach below and above them ``(2, n)``."""
    values, low, high = np.array([[each.value, each.low, each.high] for each in estimates]).T
    return values, np.maximum([values - low, high - values], 0)


def thinned(across: Floats, up: Floats) -> tuple[Floats, Floats]:
    """Return at most `_MAX_POINTS` points of a curve, its ends among them; more can't be seen and take long to draw."""
    if len(across) <= _MAX_POINTS:
        return across, up
    chosen = np.unique(np.linspace(0, len(across) - 1, _MAX_POINTS).round().astype(np.int64))
    return across[chosen], up[chosen]


def dress_unit(axes: Axes, across: str, up: str, title: str) -> None:
    """Give axes from 0 to 1 their words."""
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_title(title, fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)


def _cut(axes: Axes, across_end: float, up_start: float) -> None:
    axes.set_xlim(-0.01 * across_end, 1.01 * across_end)
    axes.set_ylim(up_start - 0.01 * (1 - up_start), 1 + 0.02 * (1 - up_start))
    axes.locator_params(nbins=5)  # small numbers are long, and would run into one another


def _scorable(predictions: Predictions) -> list[int]:
    n = predictions.confusion.sum(axis=1)
    return [k for k in range(len(n)) if 0 < n[k] < n.sum()]


def _draw_bins(axes: Axes, bins: Sequence[Bin], colour: str, marker: str, label: str) -> None:
    scores = [b.mean_score for b in bins]
    shares, reach = shares_and_reach([b.share for b in bins])
    axes.errorbar(scores, shares, yerr=reach, color=colour, marker=marker, markersize=4, ls="", elinewidth=0.8, label=label)
    axes.plot(scores, shares, color=colour, linewidth=0.8, alpha=0.5)
