"""Trainings on real tiles that tell what the cutoff does and on which samplers and pruners can be tried: one row per epoch.

``--design cutoff`` repeats five cutoffs from several seeds at one learning rate, the same seeds and the same split for each.
``--design random`` draws cutoff and learning rate at random from the ranges of the search. No trial is pruned. The table grows
trial by trial, and the same command goes on with it.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from common import RESULTS

from histo_mlflow.console import say
from histo_mlflow.jobs.train import Train
from histo_mlflow.learning.reports import EpochReport
from histo_mlflow.options import build
from histo_mlflow.pipeline.inputs import open_learning_inputs
from histo_mlflow.pipeline.split import run_split
from histo_mlflow.tiles.splits import hold_out
from tuning.options import SearchOptions
from tuning.search_space import Space, suggest

_COLUMNS = ("trial", "aug_cutoff", "learning_rate", "seed", "epoch", "val_loss")
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_LEARNING_RATE = 3e-3  # near the best of the study in docs/tuning.md


def main() -> None:
    """Train what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--design", choices=("cutoff", "random"), required=True)
    parser.add_argument("--data", required=True, help="real tiles, as `histo train --data`")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of a trial")
    parser.add_argument("--seeds", type=int, default=5, help="seeds for each cutoff")
    parser.add_argument("--trials", type=int, default=32, help="trials drawn at random")
    options = parser.parse_args()
    file = RESULTS / f"tuning-{options.design}.csv"
    base = {"data": options.data, "weights": "none", "epochs": options.epochs}
    config = build(Train, base)
    inputs, config = open_learning_inputs(config)
    split = hold_out(inputs.tiles, config.split, seed=0)
    designs = _cutoffs(options.epochs, options.seeds) if options.design == "cutoff" else _draws(options.epochs, options.trials)
    done = _trials_in(file)
    for trial, values in enumerate(designs):
        if trial in done:
            continue
        losses: list[float] = []

        def observe(epoch: EpochReport, losses: list[float] = losses) -> None:
            losses.append(epoch.val.loss)

        run_split(inputs, split, build(Train, {**base, **values}).recipe, on_epoch=observe)
        say(f"{trial}: {values}, lowest {min(losses):.4f}")
        _append(file, [[trial, *values.values(), epoch, f"{loss:.6f}"] for epoch, loss in enumerate(losses, start=1)])


def _cutoffs(epochs: int, n_seeds: int) -> Iterator[dict[str, Any]]:
    for seed in range(n_seeds):
        for share in _SHARES:
            yield {"aug_cutoff": round(share * epochs), "learning_rate": _LEARNING_RATE, "seed": seed}


def _draws(epochs: int, n_trials: int) -> Iterator[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(n_trials):
        yield {**suggest(study.ask(), Space.of(SearchOptions(), epochs=epochs)), "seed": 0}


def _trials_in(file: Path) -> set[int]:
    if not file.exists():
        return set()
    with file.open(newline="") as stream:
        return {int(row["trial"]) for row in csv.DictReader(stream)}


def _append(file: Path, rows: list[list[Any]]) -> None:
    is_new = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([_COLUMNS, *rows] if is_new else rows)


if __name__ == "__main__":
    main()
