"""Pictures of how a training went, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from histo_mlflow.evaluation.plots import TEST, TRAIN, VAL, begin_picture, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture


def draw_curves(history: Mapping[str, Sequence[float]], *, aug_cutoff: int, best_epoch: int, title: str) -> Picture:
    """Return loss and accuracy per epoch, with the end of augmentation and the chosen epoch marked.

    Args:
        history: Values per epoch, from epoch 1, under the public metric names; ``test/...`` may be absent.
        aug_cutoff: Last augmented epoch; 0 for none.
        best_epoch: The epoch of the lowest validation loss.
        title: Headline of the picture.
    """
    epochs = range(1, len(history["train/loss"]) + 1)

    def draw(axes: Axes, name: str) -> None:
        for split, colour in (("train", TRAIN), ("val", VAL), ("test", TEST)):
            if f"{split}/{name}" in history:
                axes.plot(epochs, history[f"{split}/{name}"], color=colour, marker=".", label=split)

    return _draw_epochs(draw, len(epochs), aug_cutoff=aug_cutoff, best_epoch=best_epoch, title=title)


def draw_fold_curves(histories: Sequence[Mapping[str, Sequence[float]]], *, aug_cutoff: int, title: str) -> Picture:
    """Return validation loss and accuracy per epoch, a thin line for each fold and a thick one for their mean."""
    n_epochs = max(len(history["val/loss"]) for history in histories)
    epochs = range(1, n_epochs + 1)

    def draw(axes: Axes, name: str) -> None:
        # A fold that has stopped early has no values later on.
        values = np.full((len(histories), n_epochs), np.nan)
        for k, history in enumerate(histories):
            values[k, : len(history[f"val/{name}"])] = history[f"val/{name}"]
        for k, of_fold in enumerate(values):
            axes.plot(epochs, of_fold, color=VAL, alpha=0.3, linewidth=0.9, label="val, each fold" if k == 0 else None)
        axes.plot(epochs, np.nanmean(values, axis=0), color=VAL, linewidth=2.2, label="val, mean of folds")

    return _draw_epochs(draw, n_epochs, aug_cutoff=aug_cutoff, best_epoch=None, title=title)


def _draw_epochs(
    draw: Callable[[Axes, str], None], n_epochs: int, *, aug_cutoff: int, best_epoch: int | None, title: str
) -> Picture:
    picture = begin_picture((10.5, 4.2))
    colours = {"facecolor": "#dfe8f2", "edgecolor": "#b9cbe0"}
    for axes, name in zip(picture.subplots(1, 2), ("loss", "accuracy"), strict=True):
        draw(axes, name)
        if aug_cutoff > 0:
            end = min(aug_cutoff, n_epochs) + 0.5
            axes.axvspan(0.5, end, **colours, linewidth=0.8, zorder=0, label="augmentation on")
        if best_epoch is not None:
            axes.axvline(best_epoch, color=VAL, linestyle=":", linewidth=1.2, label=f"chosen epoch {best_epoch}")
        axes.set_xlim(0.5, n_epochs + 0.5)
        axes.set_xlabel("epoch")
        axes.set_ylabel("loss (nats)" if name == "loss" else "accuracy")
        axes.set_ylim(bottom=0, top=None if name == "loss" else 1.02)
        axes.locator_params(axis="x", integer=True)
        finish(axes)
    picture.suptitle(title, fontsize="medium")
    return picture
