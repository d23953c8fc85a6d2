"""Which pruner and which sampler, tried on a saved table of real trials (``results/tuning-random.csv``).

Pruners see the trials of the table in many random orders: what share of the epochs they save, and how much worse the best trial
that they let finish is than the best of all. Samplers search a smooth surface fitted to the table (a Gaussian process on
cutoff and log learning rate) from many seeds: how far their best is above the lowest point. Writes
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
from tuning.search_space import suggest

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


def main() -> None:
    """Try them, print two tables and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--table", type=Path, default=RESULTS / "tuning-random.csv")
    parser.add_argument("--orders", type=int, default=50, help="random orders of the trials")
    parser.add_argument("--seeds", type=int, default=50, help="searches of each sampler")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = pd.read_csv(options.table)
    curves = table.pivot_table(index="trial", columns="epoch", values="val_loss").to_numpy()
    pruned = {name: _try_pruner(make, curves, options.orders) for name, make in PRUNERS.items()}
    sampled = {name: _try_sampler(make, table, options.seeds) for name, make in SAMPLERS.items()}
    write_results(RESULTS / "tuning-choice.json", {"n_trials": len(curves), "pruners": pruned, "samplers": sampled})
    rows = [
        [name, f"{said['saved']:.0%}", f"{said['regret']:.4f}", f"{said['kept_best']:.0%}"] for name, said in pruned.items()
    ]
    say(format_table(["pruner", "epochs saved", "regret (nats)", "best trial kept"], rows))
    rows = [[name, *(f"{value:.4f}" for value in said.values())] for name, said in sampled.items()]
    say("\n" + format_table(["sampler", *(f"regret after {n}" for n in _AFTER)], rows))


def _try_pruner(make: Any, curves: Any, n_orders: int) -> dict[str, float]:
    n_trials, n_epochs = curves.shape
    used, regrets = [], []
    for order in range(n_orders):
        study = optuna.create_study(pruner=make(n_epochs))
        done: list[float] = []
        n_used = 0
        for row in np.random.default_rng(order).permutation(n_trials):
            trial = study.ask()
            is_pruned = False
            for epoch in range(1, n_epochs + 1):
                trial.report(curves[row, epoch - 1], epoch)
                n_used += 1
                if epoch < n_epochs and trial.should_prune():
                    is_pruned = True
                    break
            if is_pruned:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                done.append(float(curves[row].min()))
                study.tell(trial, done[-1])
        used.append(n_used / curves.size)
        regrets.append(min(done) - float(curves.min()))
    kept = float(np.mean(np.array(regrets) < 1e-9))
    return {"saved": 1 - float(np.mean(used)), "regret": float(np.mean(regrets)), "kept_best": kept}


def _try_sampler(make: Any, table: Any, n_seeds: int) -> dict[str, float]:
    trials = table.groupby("trial").agg({"aug_cutoff": "first", "learning_rate": "first", "val_loss": "min"})
    n_epochs = int(table["epoch"].max())
    kernel = ConstantKernel() * Matern([1.0, 1.0], nu=2.5) + WhiteKernel(0.01, (1e-6, 1.0))
    surface = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=3, random_state=0)
    surface.fit(_place(trials["aug_cutoff"], trials["learning_rate"], n_epochs), np.log(trials["val_loss"]))
    grid = np.meshgrid(np.arange(n_epochs + 1), np.logspace(-4, -2, 101))
    lowest = np.exp(surface.predict(_place(grid[0].ravel(), grid[1].ravel(), n_epochs))).min()
    regrets = []
    for seed in range(n_seeds):
        study = optuna.create_study(sampler=make(seed))
        for _ in range(max(_AFTER)):
            trial = study.ask()
            values = suggest(trial, epochs=n_epochs)
            at = _place([values["aug_cutoff"]], [values["learning_rate"]], n_epochs)
            study.tell(trial, float(np.exp(surface.predict(at))[0]))
        losses = np.minimum.accumulate([trial.value for trial in study.get_trials(deepcopy=False)])
        regrets.append([losses[n - 1] - lowest for n in _AFTER])
    return {f"after_{n}": float(mean) for n, mean in zip(_AFTER, np.mean(regrets, axis=0), strict=True)}


def _place(cutoffs: Any, rates: Any, n_epochs: int) -> Any:
    """Return cutoff and learning rate as ``(n, 2)``, each from 0 to about 1."""
    return np.column_stack([np.asarray(cutoffs) / n_epochs, (np.log10(np.asarray(rates)) + 4) / 2])


if __name__ == "__main__":
    main()
