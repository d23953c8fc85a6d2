"""Pictures of results, for people who would rather look than read; returns matplotlib figures and saves nothing.

Colours are readable in greyscale: one hue from light to dark, or, where classes are told apart, a dash pattern each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.class_curves import (
    QUIET,
    TEST,
    VAL,
    plot_class_reliability,
    plot_precision,
    plot_reliability,
    plot_roc,
    shares_and_reach,
    thinned,
)
from histo_mlflow.evaluation.gallery import GalleryRow, as_sheet
from histo_mlflow.evaluation.intervals import Estimate, Floats
from histo_mlflow.evaluation.lettering import label_classes
from histo_mlflow.evaluation.perturbed import Perturbed
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.ranking import risk_coverage_curve

if TYPE_CHECKING:  # matplotlib is imported where a picture begins: training need not wait for it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

_HUE = "Blues"
_DARK_CELL = 0.55
_FEW = 0.05  # of the tiles: an error among the first of them would fix the axis
PANEL = (5.4, 4.1)
"""Inches of a picture that a page shows at its own size, also where it is narrow: its type then is as large as the page's."""


def draw_confusion(confusion: NDArray[np.int64], classes: Sequence[str], *, title: str) -> Picture:
    """Return the confusion matrix twice: as counts and as shares of each true class."""
    labels = label_classes(classes)
    side = max(4.2, 0.58 * len(classes) + 1.2)
    picture = begin_picture((2 * side + 0.6, side + 1.0))
    left, right = picture.subplots(1, 2)
    n_tiles = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, n_tiles, out=np.zeros(confusion.shape), where=n_tiles > 0)
    _draw_matrix(left, shares, [[f"{count}" if count else "·" for count in row] for row in confusion], labels.shown)
    _draw_matrix(right, shares, [[f"{100 * share:.0f}" if share else "·" for share in row] for row in shares], labels.shown)
    left.set_title("tiles")
    right.set_title("% of the true class")
    picture.suptitle(title, fontsize="medium")
    return labels.explain(picture)


def draw_roc_and_precision(predictions: Predictions) -> Picture:
    """Return, side by side, ROC and precision-recall curves of each class against all others."""
    picture = begin_picture((10.5, 5.0))
    left, right = picture.subplots(1, 2)
    labels = label_classes(predictions.classes)
    plot_roc(left, predictions, labels.shown)
    plot_precision(right, predictions, labels.shown)
    for axes in (left, right):
        axes.set_aspect("equal")
    right.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return labels.explain(picture)


def draw_calibration(as_is: Predictions, other: Predictions | None, *, other_label: str) -> Picture:
    """Return the reliability diagram of the predicted class, beside one of each class; `other` is drawn too if given."""
    picture = begin_picture((10.5, 4.9))
    left, right = picture.subplots(1, 2)
    labels = label_classes(as_is.classes)
    plot_reliability(left, as_is, other, other_label=other_label)
    plot_class_reliability(right, as_is, labels.shown)
    for axes in (left, right):
        axes.set_aspect("equal")
    right.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return labels.explain(picture)


def draw_panels(predictions: Predictions, other: Predictions | None, *, other_label: str) -> dict[str, Picture]:
    """Return the same curves for a page, each a picture of its own, by name; the page says which line is which class."""
    classes = predictions.classes
    drawn: dict[str, Callable[[Axes], None]] = {
        "roc": lambda axes: plot_roc(axes, predictions, classes, is_zoomed=True),
        "precision": lambda axes: plot_precision(axes, predictions, classes, is_zoomed=True),
        "reliability": lambda axes: plot_reliability(axes, predictions, other, other_label=other_label),
        "class_reliability": lambda axes: plot_class_reliability(axes, predictions, classes),
    }
    panels = {}
    for name, draw in drawn.items():
        panels[name] = begin_picture(PANEL)
        draw(panels[name].subplots())
    return panels


def draw_risk_coverage(predictions: Predictions, threshold: float | None) -> Picture:
    """Return the error rate among the most confident tiles against their share, with the validation's threshold marked."""
    picture = begin_picture(PANEL)
    axes = picture.subplots()
    coverage, risk = risk_coverage_curve(predictions.confidence, predictions.is_wrong)
    axes.plot(*thinned(coverage, risk), color=VAL, linewidth=1.8, label="error rate of what is kept")
    axes.axhline(0.01, color="#bbbbbb", linewidth=0.8)
    axes.annotate("99 % right", (1.0, 0.01), fontsize="small", color=QUIET, va="bottom", ha="right")
    if threshold is not None:
        is_kept = predictions.confidence >= threshold
        share = float(is_kept.mean())
        kept_risk = float(predictions.is_wrong[is_kept].mean()) if share else 0.0
        label = f"threshold {threshold:.4f} of validation"
        axes.plot([share], [kept_risk], marker="D", color=TEST, linestyle="", label=label)
    axes.set_xlim(0, 1.01)
    axes.set_ylim(bottom=0, top=max(0.02, 1.1 * float(risk[coverage >= _FEW].max())))
    axes.set_xlabel("share of tiles that are kept, the most confident first")
    axes.set_ylabel("error rate")
    finish(axes)
    return picture


def draw_robustness(found: Sequence[Perturbed]) -> Picture:
    """Return, for each change, the share of tiles whose class changes, with its Wilson interval."""
    changes = found[1:]
    picture = begin_picture((PANEL[0], 0.26 * len(changes) + 1.0))
    axes = picture.subplots()
    places = np.arange(len(changes))[::-1]
    shares, reach = shares_and_reach([each.changed for each in changes])
    kinds = list(dict.fromkeys(each.kind for each in changes))
    colours = [("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")[kinds.index(each.kind) % 5] for each in changes]
    axes.barh(places, shares, color=colours, height=0.7, alpha=0.75)
    axes.errorbar(shares, places, xerr=reach, fmt="none", ecolor="#333333", elinewidth=0.9, capsize=2)
    axes.set_yticks(places, [f"{each.kind}, {each.strength}" for each in changes], fontsize="small")
    axes.set_xlim(0, min(1.0, max(0.05, 1.05 * float((shares + reach[1]).max()))))
    axes.set_xlabel(f"share of {len(found[0].labels)} tiles whose class changes")
    axes.spines[["top", "right"]].set_visible(False)
    return picture


def draw_sheet(rows: Sequence[GalleryRow], classes: Sequence[str]) -> Picture:
    """Return a contact sheet: the heading of each row, its tiles and what is written below them."""
    labels = label_classes(classes)
    sheet = as_sheet(rows, labels.shown)
    columns = max(len(pictures) for _, pictures, _ in sheet)
    picture = begin_picture((1.45 * columns + 0.4, 1.95 * len(sheet) + 0.3))
    grid = picture.subplots(len(sheet), columns, squeeze=False)
    for line, (heading, pictures, captions) in zip(grid, sheet, strict=True):
        for axes in line:
            axes.set_axis_off()
        line[0].set_title(heading, fontsize="small", loc="left")
        for axes, tile, caption in zip(line, pictures, captions, strict=False):
            axes.imshow(tile)
            axes.text(0.5, -0.05, caption, transform=axes.transAxes, ha="center", va="top", fontsize=6)
    return labels.explain(picture)


def draw_differences(classes: Sequence[str], differences: Sequence[Estimate]) -> Picture:
    """Return the difference in sensitivity of each class as points with intervals around a line at 0."""
    labels = label_classes(classes)
    picture = begin_picture((7.0, 0.34 * len(classes) + 1.0))
    axes = picture.subplots()
    places = np.arange(len(classes))[::-1]
    for place, each in zip(places, differences, strict=True):
        if np.isfinite([each.value, each.low, each.high]).all():
            axes.plot([each.low, each.high], [place, place], color=VAL, linewidth=1.6)
            axes.plot([each.value], [place], marker="o", color=VAL)
    axes.axvline(0, color="#888888", linewidth=0.9)
    axes.set_yticks(places, [f"sensitivity {name}" for name in labels.shown])
    axes.set_xlabel("B minus A")
    axes.spines[["top", "right"]].set_visible(False)
    return labels.explain(picture)


def begin_picture(size_inches: tuple[float, float]) -> Picture:
    """Return an empty picture."""
    from matplotlib.figure import Figure

    return Figure(figsize=size_inches, layout="constrained")


def _draw_matrix(axes: Axes, shares: Floats, texts: list[list[str]], classes: Sequence[str]) -> None:
    axes.imshow(shares, cmap=_HUE, vmin=0, vmax=1)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            colour = "white" if shares[row, column] > _DARK_CELL else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def finish(axes: Axes) -> None:
    """Take away what only distracts, and name the lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
