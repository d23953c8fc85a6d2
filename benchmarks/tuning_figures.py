"""Draws what the tables of `tuning_trials.py` say, into ``docs/images``, and prints what the cutoff does with its intervals."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pandas as pd
from common import RESULTS, write_results
from scipy import stats

from histo_mlflow.console import format_table, say
from tuning.figures import draw_study
from tuning.options import SearchOptions
from tuning.search_space import Space, suggest

_IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"


def main() -> None:
    """Draw and print."""
    _draw_random(pd.read_csv(RESULTS / "tuning-random.csv"))
    _draw_cutoffs(pd.read_csv(RESULTS / "tuning-cutoff.csv"))


def _draw_random(table: pd.DataFrame) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    n_epochs = int(table["epoch"].max())
    drawn = optuna.create_study().ask()
    suggest(drawn, Space.of(SearchOptions(), epochs=n_epochs))
    study = optuna.create_study()
    for _, rows in table.groupby("trial"):
        params = {"aug_cutoff": int(rows["aug_cutoff"].iloc[0]), "learning_rate": float(rows["learning_rate"].iloc[0])}
        losses = dict(zip(rows["epoch"].astype(int), rows["val_loss"].astype(float), strict=True))
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=drawn.distributions, value=min(losses.values()), intermediate_values=losses
            )
        )
    figures = draw_study(study)
    for name in ("surface", "intermediate_values"):
        figures[name].savefig(_IMAGES / f"tuning-random-{name.replace('_', '-')}.png", dpi=100)
    plt.close("all")


def _draw_cutoffs(table: pd.DataFrame) -> None:
    lowest = table.groupby(["seed", "aug_cutoff"])["val_loss"].min().unstack()
    n_epochs, never = int(table["epoch"].max()), lowest[0]
    figures, rows = [], []
    for cutoff in lowest.columns:
        losses = lowest[cutoff].to_numpy()
        gains = (never - lowest[cutoff]).to_numpy()
        half = float(stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains)) if cutoff else 0.0
        spread = float(stats.t.ppf(0.975, len(losses) - 1) * stats.sem(losses))
        figures.append(
            {"aug_cutoff": int(cutoff), "loss": losses.mean(), "loss_half": spread, "gain": gains.mean(), "gain_half": half}
        )
        said = f"{gains.mean():+.3f} ({gains.mean() - half:+.3f} to {gains.mean() + half:+.3f})" if cutoff else "-"
        rows.append([str(cutoff), f"{losses.mean():.3f}", f"{losses.std(ddof=1):.3f}", said])
    say(format_table(["aug_cutoff", "lowest loss", "sd", "gain over never (95 %)"], rows))
    write_results(RESULTS / "tuning-cutoff.json", {"n_seeds": len(lowest), "epochs": n_epochs, "cutoffs": figures})
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for _, losses in lowest.iterrows():
        axes.plot(lowest.columns, losses, color="#9aa5b1", marker=".", linewidth=1)
    means, halves = [each["loss"] for each in figures], [each["loss_half"] for each in figures]
    axes.errorbar(lowest.columns, means, yerr=halves, color="#c0392b", linewidth=2.5, marker="o", capsize=5)
    axes.set(xlabel=f"last epoch with augmentation (aug_cutoff) of {n_epochs}", ylabel="lowest validation loss (nats)")
    axes.set_title(f"{len(lowest)} seeds (grey), mean and 95 % interval (red)", fontsize=11, loc="left")
    axes.set_xticks(np.array(lowest.columns))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(_IMAGES / "tuning-cutoff.png", dpi=100)


if __name__ == "__main__":
    main()
