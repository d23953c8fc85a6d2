"""What pruning saves: the same searches on demo tiles with and without it, side by side, from several seeds.

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

_SCRIPT = Path(__file__).resolve().parent.parent / "tuning" / "search.py"


def main() -> None:
    """Search, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--trials", type=int, default=24, help="trials of a search")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of a trial")
    parser.add_argument("--seeds", type=int, default=3, help="searches with and without")
    parser.add_argument("--output", type=Path, default=RESULTS / "pruning.json", help="the JSON file")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        weights = _pretrain(Path(folder))
        for seed in range(options.seeds):
            with ThreadPoolExecutor(2) as pool:  # one core each
                arms = [pool.submit(_search, options, seed, pruner, weights) for pruner in (MEDIAN, NONE)]
            found += [arm.result() for arm in arms]
            say(str(found[-2:]))
    epochs = {pruner: sum(each["epochs"] for each in found if each["pruner"] == pruner) for pruner in (MEDIAN, NONE)}
    saved = 1 - epochs[MEDIAN] / epochs[NONE]
    gaps = np.array([a["best"] - b["best"] for a, b in zip(found[::2], found[1::2], strict=True)])
    half = float(stats.t.ppf(0.975, len(gaps) - 1) * stats.sem(gaps))
    facts = {"machine": describe_machine("cpu"), "trials": options.trials, "epochs": options.epochs, "searches": found}
    difference = {"mean": float(gaps.mean()), "half": half}
    write_results(options.output, {**facts, "saved": saved, "loss_with_pruning_minus_without": difference})
    rows = [[str(each["seed"]), each["pruner"], str(each["epochs"]), f"{each['best']:.4f}"] for each in found]
    say(format_table(["seed", "pruner", "epochs", "lowest loss"], rows))
    say(f"epochs saved {saved:.0%}; lowest loss with pruning minus without {gaps.mean():.4f} (95 % interval +- {half:.4f})")


def _pretrain(folder: Path) -> Path:
    command = [sys.executable, "-m", "histo_mlflow", "train", "--data", "demo#1", "--weights", "none", "--image-size", "32"]
    short = ["--epochs", "20", "--register", "false", "--keep-checkpoints", "best"]
    subprocess.run([*command, *short], cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return next(folder.rglob("best.safetensors"))


def _search(options: argparse.Namespace, seed: int, pruner: str, weights: Path) -> dict[str, Any]:
    asked = {
        "data": "demo", "weights": weights, "image-size": 32, "batch-size": 16, "val-fraction": 0.5,
        "trials": options.trials, "epochs": options.epochs, "repeats": 0, "seed": seed, "pruner": pruner,
    }  # fmt: skip
    arguments = [f"--{name}={value}" for name, value in asked.items()]
    with tempfile.TemporaryDirectory() as folder:
        here = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, str(_SCRIPT), *arguments], cwd=folder, env=here, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        study = optuna.load_study(study_name="histo-b3", storage=f"sqlite:///{folder}/optuna.db")
        n_epochs = sum(len(trial.intermediate_values) for trial in study.get_trials())
        return {"seed": seed, "pruner": pruner, "epochs": n_epochs, "best": study.best_value}


if __name__ == "__main__":
    main()
