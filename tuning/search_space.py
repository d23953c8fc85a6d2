"""The only place with ranges: one line makes an option part of the search."""

from typing import Any

import optuna


def suggest(trial: optuna.trial.BaseTrial, *, epochs: int) -> dict[str, Any]:
    """Return values for options of `train`, by their public names."""
    return {
        "aug_cutoff": trial.suggest_int("aug_cutoff", 0, epochs),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        # Off: each wants more trials. Take the # away to search it.
        # "weight_decay": trial.suggest_float("weight_decay", 1e-4, 0.3, log=True),
        # "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2),
        # "stain": "all", "stain_sigma": trial.suggest_float("stain_sigma", 0.01, 0.1, log=True),
    }
