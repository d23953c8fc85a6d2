"""The result of a study: a table, figures, the best options, and how much of the gain is noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import optuna
import yaml
from scipy import stats

from histo_mlflow.console import format_table
from histo_mlflow.jobs.train import Train
from histo_mlflow.options import option_fields
from histo_mlflow.tracking.runs import Run
from tuning.figures import draw_study
from tuning.objective import Objective
from tuning.study import RUN_ID_ATTRIBUTE

BEST_CONFIG = Path("best_config.yaml")
_NOISE_ATTRIBUTE = "repeats"


@dataclass(frozen=True)
class Noise:
    """Validation losses of the best and of the default setting, seed by seed, in nats."""

    best: list[float]
    default: list[float]

    def describe(self) -> str:
        """Return the mean gain with its 95 % interval (paired t-test over seeds)."""
        gains = np.array(self.default) - np.array(self.best)
        mean, half = gains.mean(), stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains)
        verdict = "more than noise" if mean - half > 0 else "within the noise of the seeds"
        return (
            f"best {_spread(self.best)}, default {_spread(self.default)} over {len(gains)} seeds: gain {mean:.4f} nats "
            f"(95 % interval {mean - half:.4f} to {mean + half:.4f}), {verdict}"
        )


def repeat(study: optuna.Study, objective: Objective, n_seeds: int) -> Noise:
    """Train with the best values and with the defaults from `n_seeds` other seeds each; the split stays the same."""
    known = study.user_attrs.get(_NOISE_ATTRIBUTE, {})
    if known.get("params") == study.best_params and len(known["best"]) == n_seeds:
        return Noise(known["best"], known["default"])
    epochs, first = objective.base["epochs"], objective.base["seed"] + 1
    usual: dict[str, Any] = {name: option.default for name, option in option_fields(Train).items()}
    usual["aug_cutoff"] = round(usual["aug_cutoff"] / usual["epochs"] * epochs)  # the same share of another number of epochs
    defaults = {name: usual[name] for name in study.best_params}
    losses: dict[str, list[float]] = {"best": [], "default": []}
    for seed in range(first, first + n_seeds):
        for name, values in (("best", study.best_params), ("default", defaults)):
            tags: dict[str, object] = {"histo.repeat": name, "histo.seed": seed}
            losses[name].append(objective.learn({**values, "seed": seed}, f"{name} setting, seed {seed}", tags))
    study.set_user_attr(_NOISE_ATTRIBUTE, {"params": study.best_params, **losses})
    return Noise(losses["best"], losses["default"])


def record(run: Run, study: optuna.Study, base: dict[str, Any], noise: Noise | None) -> None:
    """Write the best options here, and keep them, the trials and the figures with the run of the study."""
    BEST_CONFIG.write_text(yaml.safe_dump(base | study.best_params, sort_keys=False))
    run.log_file(BEST_CONFIG)
    run.log_metrics({"best/val_loss": study.best_value})
    best = {
        f"best/{name}": value for name, value in study.best_params.items()
    }  # tags, because a study that goes on changes them
    run.set_tags({**best, "histo.best_run": study.best_trial.user_attrs[RUN_ID_ATTRIBUTE]})
    run.describe(f"{summarise(study, noise)}\n\n```\n{describe(study)}\n```")
    with run.draft() as folder:
        study.trials_dataframe(multi_index=False).to_csv(folder / "trials.csv", index=False)
        for name, figure in draw_study(study).items():
            figure.savefig(folder / f"{name}.png", dpi=120)
            plt.close(figure)


def summarise(study: optuna.Study, noise: Noise | None) -> str:
    """Return a line on the best trial, and one on noise if it was measured."""
    values = ", ".join(f"{name}={value:.4g}" for name, value in study.best_params.items())
    line = f"lowest validation loss {study.best_value:.4f} in trial {study.best_trial.number}: {values}"
    return line if noise is None else f"{line}\n\n{noise.describe()}"


def describe(study: optuna.Study) -> str:
    """Return the table of trials."""
    names = list(study.best_params)
    rows = []
    for trial in study.get_trials(deepcopy=False):
        if not trial.params:
            continue  # it was surplus
        values = [f"{trial.params[name]:.4g}" if name in trial.params else "" for name in names]
        loss = "" if trial.value is None else f"{trial.value:.4f}"
        mark = " *" if trial.number == study.best_trial.number else ""
        rows.append([f"{trial.number}{mark}", *values, loss, trial.state.name.lower()])
    header = ["trial", *(name.replace("_", " ") for name in names), "validation loss", "state"]
    return f"{format_table(header, rows)}\n* lowest validation loss of a completed trial"


def _spread(losses: Sequence[float]) -> str:
    return f"{np.mean(losses):.4f} (sd {np.std(losses, ddof=1):.4f})"
