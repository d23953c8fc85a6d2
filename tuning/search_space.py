"""The only place with ranges: one line makes an option part of the search."""

from typing import Any

import optuna


def suggest(trial: optuna.Trial, *, epochs: int) -> dict[str, Any]:
    """Return values for options of `train`, by their public names."""
    return {
        "aug_cutoff": trial.suggest_int("aug_cutoff", 0, epochs),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
    }
