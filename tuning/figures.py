"""Figures of a study: how it went, what each epoch showed, which parameters mattered, and the loss over the ranges."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from .study import ASKED_ATTRIBUTE

_LOSS = "validation loss (nats)"
_BEST, _DONE, _PRUNED = "#c0392b", "#1f6fb2", "#9aa5b1"
_SIZE_INCHES = (8.0, 5.0)
_LEAST_FOR_SURFACE, _LEAST_FOR_IMPORTANCE = 6, 4


def draw_study(study: optuna.Study) -> dict[str, Figure]:
    """Return the figures by name; those that need more finished trials than there are, are left out."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    count = f"{len(done)} trials to their end, {len(pruned)} pruned"
    is_of_folds = bool(study.user_attrs.get(ASKED_ATTRIBUTE, {}).get("folds"))
    figures = {"optimization_history": _draw_history(done, pruned, count, is_of_folds=is_of_folds)}
    if any(trial.intermediate_values for trial in [*done, *pruned]):
        figures["intermediate_values"] = _draw_epochs(done, pruned, study.best_trial.number, count)
    if len(done) >= _LEAST_FOR_IMPORTANCE and len(study.best_params) > 1:
        figures["param_importances"] = _draw_importances(study, count)
    if {"aug_cutoff", "learning_rate"} <= set(study.best_params):
        figures["surface"] = _draw_surface(study, done, pruned, count)
    return figures


def _draw_history(done: list[FrozenTrial], pruned: list[FrozenTrial], count: str, *, is_of_folds: bool) -> Figure:
    figure, axes = _begin(f"Losses in the order of the trials: {count}")
    stood = {trial.number: _where_it_stood(trial, is_of_folds) for trial in pruned if trial.intermediate_values}
    axes.plot(list(stood), list(stood.values()), "x", color=_PRUNED, label="pruned, where it stood")
    numbers, losses = [trial.number for trial in done], [float(trial.value or 0.0) for trial in done]
    axes.plot(numbers, losses, "o", color=_DONE, label="completed")
    axes.step(numbers, np.minimum.accumulate(losses), where="post", color=_BEST, label="lowest so far")
    _finish_losses(axes, "trial")
    return figure


def _draw_epochs(done: list[FrozenTrial], pruned: list[FrozenTrial], best: int, count: str) -> Figure:
    figure, axes = _begin(f"What each epoch showed: {count}")
    for trials, colour, label in ((pruned, _PRUNED, "pruned"), (done, _DONE, "completed")):
        for k, trial in enumerate(trials):
            is_best = trial.number == best
            axes.plot(
                list(trial.intermediate_values),
                list(trial.intermediate_values.values()),
                color=_BEST if is_best else colour,
                linewidth=2.5 if is_best else 1.0,
                alpha=1.0 if is_best else 0.7,
                marker=".",
                zorder=3 if is_best else 2,
                label="lowest loss" if is_best else label if k == 0 else None,
            )
    _finish_losses(axes, "epoch, or fold")
    return figure


def _draw_importances(study: optuna.Study, count: str) -> Figure:
    figure, axes = _begin(f"Share of the spread that a parameter explains (fANOVA): {count}")
    shares = optuna.importance.get_param_importances(study)
    names = list(shares)[::-1]
    bars = axes.barh([name.replace("_", " ") for name in names], [shares[name] for name in names], color=_DONE)
    axes.bar_label(bars, fmt="%.2f", padding=4)
    axes.set(xlim=(0, 1.08), xlabel="share; from few trials a rough guess")
    return figure


def _draw_surface(study: optuna.Study, done: list[FrozenTrial], pruned: list[FrozenTrial], count: str) -> Figure:
    figure, axes = _begin(f"Validation loss over cutoff and learning rate: {count}")
    cutoffs, rates = _places(done)
    losses = np.array([trial.value for trial in done], dtype=float)
    if len(done) >= _LEAST_FOR_SURFACE and len(set(cutoffs)) > 2:
        # Triangles in the units of the axes: without the logarithm they would all be slivers.
        filled = axes.tricontourf(cutoffs, np.log10(rates), losses, levels=12, cmap="viridis_r", alpha=0.55)
        filled.set_edgecolor("face")
    points = axes.scatter(
        cutoffs, np.log10(rates), c=losses, cmap="viridis_r", s=70, edgecolor="black", label="completed", zorder=3
    )
    axes.plot(_places(pruned)[0], np.log10(_places(pruned)[1]), "x", color=_PRUNED, label="pruned")
    best = study.best_trial.params
    axes.plot(
        best["aug_cutoff"], np.log10(best["learning_rate"]), "*", color=_BEST, markersize=18, zorder=4, label="lowest loss"
    )
    figure.colorbar(points, ax=axes, label=_LOSS)
    axes.yaxis.set_major_formatter(lambda exponent, _: f"{10**exponent:.1e}")
    axes.set(xlabel="last epoch with augmentation (aug_cutoff)", ylabel="learning rate")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
    return figure


def _places(trials: list[FrozenTrial]) -> tuple[list[int], list[float]]:
    known = [trial.params for trial in trials if {"aug_cutoff", "learning_rate"} <= set(trial.params)]
    return [each["aug_cutoff"] for each in known], [each["learning_rate"] for each in known]


def _finish_losses(axes: Axes, x: str) -> None:
    axes.set(xlabel=x, ylabel=_LOSS, yscale="log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="y", which="minor", labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def _where_it_stood(trial: FrozenTrial, is_of_folds: bool) -> float:
    """Return the loss after the last epoch, or the mean over the folds."""
    losses = trial.intermediate_values
    return float(np.mean(list(losses.values()))) if is_of_folds else losses[max(losses)]


def _begin(title: str) -> tuple[Figure, Any]:
    figure, axes = plt.subplots(figsize=_SIZE_INCHES, layout="constrained")
    axes.set_title(title, fontsize=11, loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
