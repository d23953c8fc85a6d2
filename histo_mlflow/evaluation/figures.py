"""Pictures of results, for people who would rather look than read; returns matplotlib figures and saves nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # matplotlib is imported where a picture begins: training need not wait for it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture

# One hue from light to dark: readable in greyscale and by colour-blind readers.
_HUE = "Blues"
_TRAIN, _VAL, _TEST = "#7f7f7f", "#0b5394", "#c55a11"
_DARK_CELL = 0.55


def draw_confusion(confusion: NDArray[np.int64], classes: Sequence[str], *, title: str) -> Picture:
    """Return the confusion matrix twice: as counts and as shares of each true class."""
    side = max(4.2, 0.58 * len(classes) + 1.2)
    picture = _begin_picture((2 * side + 0.6, side + 0.7))
    left, right = picture.subplots(1, 2)
    n_tiles = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, n_tiles, out=np.zeros(confusion.shape), where=n_tiles > 0)
    _draw_matrix(left, shares, [[f"{count}" if count else "·" for count in row] for row in confusion], classes)
    _draw_matrix(right, shares, [[f"{100 * share:.0f}" if share else "·" for share in row] for row in shares], classes)
    left.set_title("tiles")
    right.set_title("% of the true class")
    picture.suptitle(title, fontsize="medium")
    return picture


def _begin_picture(size_inches: tuple[float, float]) -> Picture:
    from matplotlib.figure import Figure

    return Figure(figsize=size_inches, layout="constrained")


def _draw_matrix(axes: Axes, shares: NDArray[np.float64], texts: list[list[str]], classes: Sequence[str]) -> None:
    axes.imshow(shares, cmap=_HUE, vmin=0, vmax=1)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            colour = "white" if shares[row, column] > _DARK_CELL else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def draw_curves(history: Mapping[str, Sequence[float]], *, aug_cutoff: int, best_epoch: int, title: str) -> Picture:
    """Return loss and accuracy per epoch, with the end of augmentation and the chosen epoch marked.

    Args:
        history: Values per epoch, from epoch 1, under the public metric names; ``test/...`` may be absent.
        aug_cutoff: Last augmented epoch; 0 for none.
        best_epoch: The epoch of the lowest validation loss.
        title: Headline of the picture.
    """
    picture = _begin_picture((10.5, 4.2))
    epochs = range(1, len(history["train/loss"]) + 1)
    for axes, name in zip(picture.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, colour in (("train", _TRAIN), ("val", _VAL), ("test", _TEST)):
            if f"{split}/{name}" in history:
                axes.plot(epochs, history[f"{split}/{name}"], color=colour, marker=".", label=split)
        _mark_epochs(axes, aug_cutoff, best_epoch, n_epochs=len(epochs))
        _dress(axes, name)
    picture.suptitle(title, fontsize="medium")
    return picture


def draw_fold_curves(histories: Sequence[Mapping[str, Sequence[float]]], *, aug_cutoff: int, title: str) -> Picture:
    """Return validation loss and accuracy per epoch, a thin line for each fold and a thick one for their mean."""
    picture = _begin_picture((10.5, 4.2))
    n_epochs = max(len(history["val/loss"]) for history in histories)
    epochs = range(1, n_epochs + 1)
    for axes, name in zip(picture.subplots(1, 2), ("loss", "accuracy"), strict=True):
        # A fold that has stopped early has no values later on.
        values = np.full((len(histories), n_epochs), np.nan)
        for k, history in enumerate(histories):
            values[k, : len(history[f"val/{name}"])] = history[f"val/{name}"]
        for k, of_fold in enumerate(values):
            axes.plot(epochs, of_fold, color=_VAL, alpha=0.3, linewidth=0.9, label="val, each fold" if k == 0 else None)
        axes.plot(epochs, np.nanmean(values, axis=0), color=_VAL, linewidth=2.2, label="val, mean of folds")
        _mark_epochs(axes, aug_cutoff, None, n_epochs=n_epochs)
        _dress(axes, name)
    picture.suptitle(title, fontsize="medium")
    return picture


def _dress(axes: Axes, name: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss (nats)" if name == "loss" else "accuracy")
    axes.set_ylim(bottom=0, top=None if name == "loss" else 1.02)
    axes.locator_params(axis="x", integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")


def _mark_epochs(axes: Axes, aug_cutoff: int, best_epoch: int | None, *, n_epochs: int) -> None:
    if aug_cutoff > 0:
        axes.axvspan(
            0.5,
            min(aug_cutoff, n_epochs) + 0.5,
            facecolor="#dfe8f2",
            edgecolor="#b9cbe0",
            linewidth=0.8,
            zorder=0,
            label="augmentation on",
        )
    if best_epoch is not None:
        axes.axvline(best_epoch, color=_VAL, linestyle=":", linewidth=1.2, label=f"chosen epoch {best_epoch}")
    axes.set_xlim(0.5, n_epochs + 0.5)
