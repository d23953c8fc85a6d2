"""Pictures of how a training went, epoch by epoch, or of how heads of several costs did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from histo_mlflow.evaluation.class_curves import TEST, TRAIN, VAL
from histo_mlflow.evaluation.plots import PANEL, begin_picture, finish

FIGURES = ("loss", "accuracy")
_COST = "head/C"
_FEW_EPOCHS = 8  # so few get a tick each: matplotlib would count halves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture


def draw_curves(
    history: Mapping[str, Sequence[float]],
    *,
    aug_cutoff: int,
    best_epoch: int,
    title: str,
    figures: Sequence[str] = FIGURES,
) -> Picture:
    """Return loss and accuracy per epoch, with the end of augmentation and the chosen epoch marked.

    Args:
        history: Values per epoch, from epoch 1, under the public metric names; ``test/...`` may be absent.
        aug_cutoff: Last augmented epoch; 0 for none.
        best_epoch: The epoch of the lowest validation loss.
        title: Headline of the picture; none over a single figure.
        figures: Which of loss and accuracy are drawn.
    """
    epochs = _places(history)

    def draw(axes: Axes, name: str) -> None:
        for split, colour in (("train", TRAIN), ("val", VAL), ("test", TEST)):
            if f"{split}/{name}" in history:
                axes.plot(epochs, history[f"{split}/{name}"], color=colour, marker=".", label=split)

    marks = _Marks(_COST in history, aug_cutoff, best_epoch)
    return _draw_epochs(draw, epochs, marks, title, figures)


def draw_fold_curves(
    histories: Sequence[Mapping[str, Sequence[float]]], *, aug_cutoff: int, title: str, figures: Sequence[str] = FIGURES
) -> Picture:
    """Return validation loss and accuracy per epoch, a thin line for each fold and a thick one for their mean."""
    longest = max(histories, key=lambda history: len(history["val/loss"]))
    epochs = _places(longest)

    def draw(axes: Axes, name: str) -> None:
        # A fold that has stopped early has no values later on.
        values = np.full((len(histories), len(epochs)), np.nan)
        for k, history in enumerate(histories):
            values[k, : len(history[f"val/{name}"])] = history[f"val/{name}"]
        for k, of_fold in enumerate(values):
            axes.plot(epochs, of_fold, color=VAL, alpha=0.3, linewidth=0.9, label="val, each fold" if k == 0 else None)
        # As long as all learn: when a bad fold has ended, the mean of the others would be a leap that nothing has made.
        axes.plot(epochs, values.mean(axis=0), color=VAL, linewidth=2.2, label="val, mean of folds")

    return _draw_epochs(draw, epochs, _Marks(_COST in longest, aug_cutoff, None), title, figures)


def _places(history: Mapping[str, Sequence[float]]) -> Sequence[float]:
    """Return where on the axis each value stands: at its epoch, or at its cost."""
    return history.get(_COST) or range(1, len(history["val/loss"]) + 1)


@dataclass(frozen=True)
class _Marks:
    """What is marked: last augmented epoch (0: none) and chosen one; whether costs take the place of epochs."""

    is_of_costs: bool
    aug_cutoff: int
    best_epoch: int | None


def _draw_epochs(
    draw: Callable[[Axes, str], None],
    places: Sequence[float],
    marks: _Marks,
    title: str,
    figures: Sequence[str],
) -> Picture:
    is_of_costs, aug_cutoff, best_epoch = marks.is_of_costs, marks.aug_cutoff, marks.best_epoch
    picture = begin_picture((10.5, 4.2) if len(figures) > 1 else PANEL)
    colours = {"facecolor": "#dfe8f2", "edgecolor": "#b9cbe0"}
    for axes, name in zip(picture.subplots(1, len(figures), squeeze=False)[0], figures, strict=True):
        draw(axes, name)
        if aug_cutoff > 0 and not is_of_costs:
            end = min(aug_cutoff, len(places)) + 0.5
            axes.axvspan(0.5, end, **colours, linewidth=0.8, zorder=0, label="augmentation on")
        if best_epoch is not None:
            chosen = places[best_epoch - 1]
            label = f"chosen C {chosen:.3g}" if is_of_costs else f"chosen epoch {best_epoch}"
            axes.axvline(chosen, color=VAL, linestyle=":", linewidth=1.2, label=label)
        if is_of_costs:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")  # the default is a formula, which no text here may be
        else:
            axes.set_xlim(0.5, len(places) + 0.5)
            axes.locator_params(axis="x", integer=True)
            if len(places) < _FEW_EPOCHS:
                axes.set_xticks(range(1, len(places) + 1))
        axes.set_xlabel("C of the head" if is_of_costs else "epoch")
        axes.set_ylabel("loss (nats)" if name == "loss" else "accuracy")
        axes.set_ylim(bottom=0, top=None if name == "loss" else 1.02)
        finish(axes)
    if len(figures) > 1:
        picture.suptitle(title, fontsize="medium")
    return picture
