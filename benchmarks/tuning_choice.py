"""Which pruner and which sampler, tried on a saved table of real trials (``results/tuning-random.csv``).

Pruners see the trials of the table in many random orders: what share of the epochs they save, and how much worse the best trial
that they let finish is than the best of all. They also prune whole searches whose trials are drawn from the table: a surface
for each epoch (a Gaussian process on cutoff and log learning rate), and on top what some trial of the table differed from it.
Samplers search such a surface from many seeds: how far their best is above the lowest point. Writes
``benchmarks/results/tuning-choice.json``.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from common import RESULTS, write_results
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from histo_mlflow.console import format_table, say
from tuning.options import SearchOptions
from tuning.search_space import Space, suggest

PRUNERS: dict[str, Any] = {
    "none": lambda _: optuna.pruners.NopPruner(),
    "median from 1/6": lambda n: optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=n // 6),
    "median from 1/4": lambda n: optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=n // 4),
    "median from 1/3": lambda n: optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=n // 3),
    "median from 1/2": lambda n: optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=n // 2),
    "best 60 % from 1/6": lambda n: optuna.pruners.PercentilePruner(60.0, n_startup_trials=4, n_warmup_steps=n // 6),
    "best 60 % from 1/3": lambda n: optuna.pruners.PercentilePruner(60.0, n_startup_trials=4, n_warmup_steps=n // 3),
    "best 70 % from 1/6": lambda n: optuna.pruners.PercentilePruner(70.0, n_startup_trials=4, n_warmup_steps=n // 6),
    "hyperband": lambda n: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=n),
    "halving": lambda _: optuna.pruners.SuccessiveHalvingPruner(),
}
SAMPLERS: dict[str, Any] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "TPE": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=False, n_startup_trials=5),
    "TPE, multivariate": lambda seed: optuna.samplers.TPESampler(
        seed=seed, multivariate=True, constant_liar=True, n_startup_trials=5
    ),
}
_AFTER = (8, 16, 30)
_SEARCH_TRIALS = 24


def main() -> None:
    """Try them, print two tables and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--table", type=Path, default=RESULTS / "tuning-random.csv")
    parser.add_argument("--orders", type=int, default=50, help="random orders of the trials")
    parser.add_argument("--seeds", type=int, default=50, help="searches of each sampler")
    parser.add_argument("--searches", type=int, default=100, help="searches with each pruner")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = pd.read_csv(options.table)
    curves = table.pivot_table(index="trial", columns="epoch", values="val_loss").to_numpy()
    pruned = {name: try_pruner(make, curves, options.orders) for name, make in PRUNERS.items()}
    searched = _try_pruners_in_searches(table, curves, options.searches)
    sampled = {name: _try_sampler(make, table, options.seeds) for name, make in SAMPLERS.items()}
    found = {"pruners": pruned, "pruners_in_searches": searched, "samplers": sampled}
    write_results(RESULTS / "tuning-choice.json", {"n_trials": len(curves), **found})
    rows = [
        [name, f"{said['saved']:.0%}", f"{said['regret']:.4f}", f"{said['kept_best']:.0%}"] for name, said in pruned.items()
    ]
    say(format_table(["pruner", "epochs saved", "regret (nats)", "best trial kept"], rows))
    rows = [
        [name, f"{said['saved']:.0%}", _with_interval(said["as_many_trials"]), _with_interval(said["as_many_epochs"])]
        for name, said in searched.items()
    ]
    say("\n" + format_table(["pruner in searches", "epochs saved", "loss lost, as many trials", "as many epochs"], rows))
    rows = [[name, *(f"{value:.4f}" for value in said.values())] for name, said in sampled.items()]
    say("\n" + format_table(["sampler", *(f"regret after {n}" for n in _AFTER)], rows))


def try_pruner(make: Any, curves: Any, n_orders: int) -> dict[str, float]:
    """Return what a pruner does to whole trials, ``(trials, epochs)`` of losses, on the mean over random orders of them."""
    n_trials, n_epochs = curves.shape
    used, regrets = [], []
    for order in range(n_orders):
        study = optuna.create_study(pruner=make(n_epochs))
        n_used = 0
        for row in np.random.default_rng(order).permutation(n_trials):
            trial = study.ask()
            n_used += _run_trial(study, trial, curves[row])
        used.append(n_used / curves.size)
        regrets.append(study.best_value - float(curves.min()))
    kept = float(np.mean(np.array(regrets) < 1e-9))
    return {"saved": 1 - float(np.mean(used)), "regret": float(np.mean(regrets)), "kept_best": kept}


class _DrawnTrials:
    """Loss curves for any cutoff and learning rate, drawn from those of the table."""

    def __init__(self, table: Any, curves: Any) -> None:
        self.n_epochs = curves.shape[1]
        settings = table.groupby("trial").agg({"aug_cutoff": "first", "learning_rate": "first"})
        places = _place(settings["aug_cutoff"], settings["learning_rate"], self.n_epochs)
        self._log_rates = np.linspace(-4, -2, 201)
        grid = np.meshgrid(np.arange(self.n_epochs + 1), 10**self._log_rates)
        surfaces, left = [], []
        for losses in np.log(curves.T):
            # Some noise at least: an epoch's surface must not run through every trial.
            surface = _fit_surface(
                places, losses, Matern([1.0, 1.0], (0.2, 10.0), nu=2.5), WhiteKernel(0.1, (0.02, 1.0)), tries=2
            )
            surfaces.append(surface.predict(_place(grid[0].ravel(), grid[1].ravel(), self.n_epochs)).reshape(grid[0].shape))
            left.append(losses - surface.predict(places))
        self._surfaces, self._left = np.array(surfaces), np.array(left).T

    def draw(self, cutoff: int, learning_rate: float, generator: np.random.Generator) -> Any:
        """Return the loss of each epoch."""
        rate = int(np.abs(self._log_rates - np.log10(learning_rate)).argmin())
        return np.exp(self._surfaces[:, rate, cutoff] + self._left[generator.integers(len(self._left))])


def _try_pruners_in_searches(table: Any, curves: Any, n_seeds: int) -> dict[str, Any]:
    trials = _DrawnTrials(table, curves)
    budget = _SEARCH_TRIALS * trials.n_epochs
    without = np.array([_search(PRUNERS["none"], trials, seed, budget) for seed in range(n_seeds)])[:, 1]
    said = {}
    for name, make in PRUNERS.items():
        found = np.array([_search(make, trials, seed, budget) for seed in range(n_seeds)])
        saved = 1 - float(found[:, 0].mean()) / budget
        gaps = {key: found[:, k] - without for k, key in ((1, "as_many_trials"), (2, "as_many_epochs"))}
        said[name] = {"saved": saved, **{key: _mean_and_half(values) for key, values in gaps.items()}}
    return said


def _search(make: Any, trials: _DrawnTrials, seed: int, budget: int) -> tuple[int, float, float]:
    """Return the epochs and the lowest loss after `_SEARCH_TRIALS` trials, and the lowest loss after `budget` epochs."""
    study = optuna.create_study(sampler=SAMPLERS["TPE, multivariate"](seed), pruner=make(trials.n_epochs))
    n_used, after_trials = 0, (0, np.inf)
    while n_used < budget:
        trial = study.ask()
        values = suggest(trial, Space.of(SearchOptions(), epochs=trials.n_epochs))
        losses = trials.draw(values["aug_cutoff"], values["learning_rate"], np.random.default_rng((seed, trial.number)))
        n_used += _run_trial(study, trial, losses)
        if trial.number == _SEARCH_TRIALS - 1:
            after_trials = (n_used, study.best_value)
    return *after_trials, study.best_value


def _run_trial(study: optuna.Study, trial: optuna.Trial, losses: Any) -> int:
    """Tell the study of a trial epoch by epoch, and return the epochs until its end or its pruning."""
    for epoch, loss in enumerate(losses, start=1):
        trial.report(loss, epoch)
        if epoch < len(losses) and trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return epoch
    study.tell(trial, float(min(losses)))
    return len(losses)


def _mean_and_half(values: Any) -> list[float]:
    return [float(values.mean()), float(1.96 * values.std(ddof=1) / len(values) ** 0.5)]


def _with_interval(mean_and_half: list[float]) -> str:
    mean, half = mean_and_half
    return f"{mean:.3f} ({mean - half:.3f} to {mean + half:.3f})"


def _try_sampler(make: Any, table: Any, n_seeds: int) -> dict[str, float]:
    trials = table.groupby("trial").agg({"aug_cutoff": "first", "learning_rate": "first", "val_loss": "min"})
    n_epochs = int(table["epoch"].max())
    places = _place(trials["aug_cutoff"], trials["learning_rate"], n_epochs)
    noise = WhiteKernel(0.01, (1e-6, 1.0))
    surface = _fit_surface(places, np.log(trials["val_loss"]), Matern([1.0, 1.0], nu=2.5), noise, tries=3)
    grid = np.meshgrid(np.arange(n_epochs + 1), np.logspace(-4, -2, 101))
    lowest = np.exp(surface.predict(_place(grid[0].ravel(), grid[1].ravel(), n_epochs))).min()
    regrets = []
    for seed in range(n_seeds):
        study = optuna.create_study(sampler=make(seed))
        for _ in range(max(_AFTER)):
            trial = study.ask()
            values = suggest(trial, Space.of(SearchOptions(), epochs=n_epochs))
            at = _place([values["aug_cutoff"]], [values["learning_rate"]], n_epochs)
            study.tell(trial, float(np.exp(surface.predict(at))[0]))
        losses = np.minimum.accumulate([trial.value for trial in study.get_trials(deepcopy=False)])
        regrets.append([losses[n - 1] - lowest for n in _AFTER])
    return {f"after_{n}": float(mean) for n, mean in zip(_AFTER, np.mean(regrets, axis=0), strict=True)}


def _fit_surface(places: Any, log_losses: Any, shape: Any, noise: Any, *, tries: int) -> Any:
    kernel = ConstantKernel() * shape + noise
    surface = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=tries, random_state=0)
    return surface.fit(places, log_losses)


def _place(cutoffs: Any, rates: Any, n_epochs: int) -> Any:
    """Return cutoff and learning rate as ``(n, 2)``, each from 0 to about 1."""
    return np.column_stack([np.asarray(cutoffs) / n_epochs, (np.log10(np.asarray(rates)) + 4) / 2])


if __name__ == "__main__":
    main()
