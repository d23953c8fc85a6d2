"""What pruning saves: the same searches on demo tiles with and without it, side by side, from several seeds.

The pruned search then goes on for about as many epochs as the other took, which shows what the saved ones are worth.

They start from a network that has learnt another draw of demo tiles: for as long as random weights need to learn anything, all
trials look alike.

Prints the epochs that each took and the lowest loss that each found, and writes ``benchmarks/results/pruning.json``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from common import RESULTS, describe_machine, write_results
from scipy import stats

from histo_mlflow.console import format_table, say
from tuning.options import MEDIAN, NONE

_PRUNED, _PRUNED_LONGER, _UNPRUNED = "pruned, as many trials", "pruned, as many epochs", "not pruned"
_SCRIPT = Path(__file__).resolve().parent.parent / "tuning" / "search.py"


def main() -> None:
    """Search, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--trials", type=int, default=24, help="trials of a search")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of a trial")
    parser.add_argument("--seeds", type=int, default=3, help="searches with and without")
    parser.add_argument("--output", type=Path, default=RESULTS / "pruning.json", help="the JSON file")
    options = parser.parse_args()
    arms: dict[str, list[dict[str, Any]]] = {name: [] for name in (_PRUNED, _PRUNED_LONGER, _UNPRUNED)}
    with tempfile.TemporaryDirectory() as folder:
        weights = _pretrain(Path(folder))
        for seed in range(options.seeds):
            with ThreadPoolExecutor(2) as pool:  # one core each
                pruned = pool.submit(_search_pruned, options, seed, weights)
                unpruned = pool.submit(_search_unpruned, options, seed, weights)
            for name, found in zip(arms, (*pruned.result(), unpruned.result()), strict=True):
                arms[name].append(found)
                say(f"seed {seed}, {name}: {found}")
    best = {name: np.array([each["best"] for each in found]) for name, found in arms.items()}
    n_epochs = {name: sum(each["epochs"] for each in found) for name, found in arms.items()}
    saved = 1 - n_epochs[_PRUNED] / n_epochs[_UNPRUNED]
    gaps = {name: _describe(best[name] - best[_UNPRUNED]) for name in (_PRUNED, _PRUNED_LONGER)}
    facts = {"machine": describe_machine("cpu"), "trials": options.trials, "epochs": options.epochs, "searches": arms}
    write_results(options.output, {**facts, "saved": saved, "loss_minus_that_without_pruning": gaps})
    rows = [
        [str(seed), name, str(each["trials"]), str(each["epochs"]), f"{each['best']:.4f}"]
        for name, found in arms.items()
        for seed, each in enumerate(found)
    ]
    say(format_table(["seed", "search", "trials", "epochs", "lowest loss"], rows))
    say(f"epochs saved by pruning: {saved:.0%}")
    for name, gap in gaps.items():
        say(f"lowest loss minus that without pruning, {name}: {gap['mean']:.4f} (95 % interval +- {gap['half']:.4f})")


def _describe(gaps: np.ndarray) -> dict[str, float]:
    return {"mean": float(gaps.mean()), "half": float(stats.t.ppf(0.975, len(gaps) - 1) * stats.sem(gaps))}


def _pretrain(folder: Path) -> Path:
    command = [sys.executable, "-m", "histo_mlflow", "train", "--data", "demo#1", "--weights", "none", "--image-size", "32"]
    short = ["--epochs", "20", "--register", "false", "--keep-checkpoints", "best"]
    subprocess.run([*command, *short], cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return next(folder.rglob("best.safetensors"))


def _search_unpruned(options: argparse.Namespace, seed: int, weights: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return _search(options, seed, NONE, weights, folder, options.trials)


def _search_pruned(options: argparse.Namespace, seed: int, weights: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a search of as many trials finds, and what it finds when it goes on for about as many epochs."""
    with tempfile.TemporaryDirectory() as folder:
        short = _search(options, seed, MEDIAN, weights, folder, options.trials)
        n_trials = round(options.trials * options.trials * options.epochs / short["epochs"])
        return short, _search(options, seed, MEDIAN, weights, folder, n_trials)


def _search(options: argparse.Namespace, seed: int, pruner: str, weights: Path, folder: str, n_trials: int) -> dict[str, Any]:
    asked = {
        "data": "demo", "weights": weights, "image-size": 32, "batch-size": 16, "val-fraction": 0.5,
        "trials": n_trials, "epochs": options.epochs, "repeats": 0, "seed": seed, "pruner": pruner,
    }  # fmt: skip
    arguments = [f"--{name}={value}" for name, value in asked.items()]
    here = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(_SCRIPT), *arguments], cwd=folder, env=here, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    study = optuna.load_study(study_name="histo-b3", storage=f"sqlite:///{folder}/optuna.db")
    n_epochs = sum(len(trial.intermediate_values) for trial in study.get_trials())
    return {"trials": n_trials, "epochs": n_epochs, "best": study.best_value}


if __name__ == "__main__":
    main()
