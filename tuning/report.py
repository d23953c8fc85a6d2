"""The result of a study: a table, figures, the best options, and how much of the gain is noise."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import optuna
import yaml
from numpy.typing import NDArray
from scipy import stats

from histo_mlflow.console import format_table, say, warn
from histo_mlflow.errors import NonFiniteLossError
from histo_mlflow.jobs.train import Train
from histo_mlflow.options import option_fields
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tracking.runs import Run

from .figures import draw_study
from .objective import Objective
from .options import NONE, Tune
from .study import FINISHED, RUN_ID_ATTRIBUTE, count, describe_value, describe_values

BEST_CONFIG = Path("best_config.yaml")
_NOISE_ATTRIBUTE = "repeats_on_other_splits"


@dataclass(frozen=True)
class Noise:
    """Validation losses of the best and of the default setting, seed by seed, in nats; infinite where one diverged.

    Each seed has a split of its own, the same for both settings. `val_per_train` is how many validation tiles there are for
    each training tile.
    """

    best: list[float]
    default: list[float]
    val_per_train: float

    def describe(self) -> str:
        """Return the mean gain with its 95 % interval.

        It is of the corrected resampled t-test (Nadeau and Bengio 2003, Inference for the generalization error, equation 9):
        splits of the same tiles share most of them, so that gains are not independent.
        """
        best, default = np.array(self.best), np.array(self.default)
        ended = np.isfinite(best) & np.isfinite(default)
        n_lost = [f"{name} {n}" for name, of in (("best", best), ("default", default)) if (n := int(np.isinf(of).sum()))]
        lost = f"; diverged and left out: {', '.join(n_lost)} of {len(ended)}" if n_lost else ""
        if ended.sum() < 2:  # one gain has no spread
            return f"too few repeats finished to tell gain from noise{lost}"
        gains = default[ended] - best[ended]
        error = gains.std(ddof=1) * np.sqrt(1 / len(gains) + self.val_per_train)
        mean, half = gains.mean(), stats.t.ppf(0.975, len(gains) - 1) * error
        verdict = "more than noise" if mean - half > 0 else "within the noise of seeds and splits"
        return (
            f"best {_spread(best[ended])}, default {_spread(default[ended])} over {len(gains)} other seeds and splits: gain "
            f"{mean:.4f} nats (95 % interval {mean - half:.4f} to {mean + half:.4f}), {verdict}{lost}"
        )


def repeat(study: optuna.Study, objective: Objective, n_seeds: int, cut: Callable[[int], Sequence[Split]]) -> Noise:
    """Train with the best values and with the defaults from `n_seeds` other seeds each, on the splits that `cut` makes of them.

    Not on those of the trials: the best values were chosen on them, by the luck of the split too.
    """
    ratio = len(objective.splits[0].val) / len(objective.splits[0].train)
    if (known := _kept_losses(study, n_seeds)) is not None:
        return Noise(known["best"], known["default"], ratio)
    epochs, first = objective.base["epochs"], objective.base["seed"] + 1
    defaults = {name: objective.base[name] for name in study.best_params}
    if "aug_cutoff" in defaults:  # the same share of another number of epochs
        usual: dict[str, Any] = {name: part.default for name, part in option_fields(Train).items()}
        defaults["aug_cutoff"] = round(usual["aug_cutoff"] / usual["epochs"] * epochs)
    losses: dict[str, list[float]] = {"best": [], "default": []}
    for k, seed in enumerate(range(first, first + n_seeds)):
        on_others = replace(objective, splits=cut(seed))
        for number, (name, values) in enumerate((("best", study.best_params), ("default", defaults)), start=2 * k + 1):
            said = f"{name} setting, seed {seed} and a split of its own: {describe_values(values)}"
            say(f"\nrepeat {number} of {2 * n_seeds}: {said}")
            tags: dict[str, object] = {"histo.repeat": name, "histo.seed": seed}
            try:
                losses[name].append(on_others.learn({**values, "seed": seed}, f"{name} setting, seed {seed}", tags))
            except NonFiniteLossError as error:
                warn(f"{name} setting, seed {seed}: {error}")
                losses[name].append(math.inf)
    study.set_user_attr(_NOISE_ATTRIBUTE, {"params": study.best_params, **losses})
    return Noise(losses["best"], losses["default"], ratio)


def _kept_losses(study: optuna.Study, n_seeds: int) -> dict[str, Any] | None:
    """Return the losses of repeats that an earlier call has kept, of this best setting and so many seeds, or None."""
    known: dict[str, Any] | None = study.user_attrs.get(_NOISE_ATTRIBUTE)
    return known if known and known["params"] == study.best_params and len(known["best"]) == n_seeds else None


def describe_cost(study: optuna.Study, options: Tune, split: Split) -> str:
    """Return what a search will cost, before it begins: how many trainings of how many epochs on how many tiles.

    How long an epoch takes is known when the first has been learnt.
    """
    search, epochs, n_splits = options.search, options.recipe.fit.epochs, options.search.folds or 1
    n_done = count(study, *FINISHED)
    n_left = max(0, search.trials - n_done)
    at_most = " at most, for poor trials are pruned" if search.pruner != NONE and n_left else ""
    each = f"{epochs} epochs" + (f" x {n_splits} folds" if n_splits > 1 else "")
    lines = [
        f"study {search.study}: {n_left} of {search.trials} trials to go, each {each} on {len(split.train)} tiles: "
        f"{n_left * epochs * n_splits} epochs{at_most}"
    ]
    if search.repeats and (n_left or _kept_losses(study, search.repeats) is None):
        n_epochs = 2 * search.repeats * epochs * n_splits
        lines.append(f"then {search.repeats} repeats each of the best and of the default setting: {n_epochs} epochs")
    if search.train_best:
        lines.append("then a training with the best values, registered through the gate")
    return "\n  ".join(lines)


def record(run: Run, study: optuna.Study, base: dict[str, Any]) -> None:
    """Write the best options here, and keep them, the trials and the figures with the run of the study."""
    BEST_CONFIG.write_text(yaml.safe_dump(base | study.best_params, sort_keys=False))
    run.log_file(BEST_CONFIG)
    run.log_metrics({"best/val_loss": study.best_value})
    best = {
        f"best/{name}": value for name, value in study.best_params.items()
    }  # tags, because a study that goes on changes them
    run.set_tags({**best, "histo.best_run": study.best_trial.user_attrs[RUN_ID_ATTRIBUTE]})
    describe_run(run, study, None)
    with run.draft() as folder:
        study.trials_dataframe(multi_index=False).to_csv(folder / "trials.csv", index=False)
        for name, figure in draw_study(study).items():
            figure.savefig(folder / f"{name}.png", dpi=120)
            plt.close(figure)


def describe_run(run: Run, study: optuna.Study, noise: Noise | None) -> None:
    """Put the summary and the table of trials where `mlflow ui` shows them."""
    run.describe(f"{summarise(study, noise)}\n\n```\n{describe(study)}\n```")


def summarise(study: optuna.Study, noise: Noise | None) -> str:
    """Return a line on the best trial, and one on noise if it was measured."""
    values = describe_values(study.best_params)
    line = f"lowest validation loss {study.best_value:.4f} in trial {study.best_trial.number}: {values}"
    return line if noise is None else f"{line}\n\n{noise.describe()}"


def describe(study: optuna.Study) -> str:
    """Return the table of trials."""
    names = list(study.best_params)
    rows = []
    for trial in study.get_trials(deepcopy=False):
        if not trial.params:
            continue  # it was surplus
        values = [describe_value(trial.params[name]) if name in trial.params else "" for name in names]
        loss = "" if trial.value is None else f"{trial.value:.4f}"
        mark = " *" if trial.number == study.best_trial.number else ""
        rows.append([f"{trial.number}{mark}", *values, loss, trial.state.name.lower()])
    header = ["trial", *(name.replace("_", " ") for name in names), "validation loss", "state"]
    return f"{format_table(header, rows)}\n* lowest validation loss of a completed trial"


def _spread(losses: NDArray[np.float64]) -> str:
    return f"{np.mean(losses):.4f} (sd {np.std(losses, ddof=1):.4f})"
