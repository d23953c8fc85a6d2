"""What a trial of the search pays besides learning: its run, parameters, epoch metrics and what it tells Optuna.

Runs a search on demo tiles with SQLite stores, prints the share of the trials' time and writes
``benchmarks/results/tuning-overhead.json``.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

from common import RESULTS, describe_machine, write_results

import tuning.objective
from histo_mlflow.console import say
from tuning.search import make_command


def main() -> None:
    """Search, print one line and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    learnt: list[float] = []
    run_split = tuning.objective.run_split

    def timed_split(*args: Any, on_epoch: Callable[..., None], **others: Any) -> Any:
        told = 0.0

        def timed_epoch(epoch: Any) -> None:
            nonlocal told
            start = time.perf_counter()
            on_epoch(epoch)
            told += time.perf_counter() - start

        start = time.perf_counter()
        result = run_split(*args, on_epoch=timed_epoch, **others)
        learnt.append(time.perf_counter() - start - told)
        return result

    tuning.objective.run_split = timed_split  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///mlflow.db"
        asked = [f"--trials={options.trials}", f"--epochs={options.epochs}", "--pruner=none", "--repeats=0"]
        make_command().main(asked, standalone_mode=False)
        trials = _trial_seconds()
    shares = [1 - spent / whole for spent, whole in zip(learnt, trials, strict=True)]
    facts = {"machine": describe_machine("cpu"), "epochs": options.epochs, "trial_seconds": trials, "shares": shares}
    write_results(RESULTS / "tuning-overhead.json", facts)
    say(f"share of a trial's time that is not learning: {', '.join(f'{share:.2%}' for share in shares)}")


def _trial_seconds() -> list[float]:
    import optuna

    trials = optuna.load_study(study_name="histo-b3", storage="sqlite:///optuna.db").get_trials()
    # From one trial's start to the next one's, so that what Optuna does between them counts.
    starts = [trial.datetime_start for trial in trials]
    ends = [*starts[1:], trials[-1].datetime_complete]
    return [(end - start).total_seconds() for start, end in zip(starts, ends, strict=True) if start and end]


if __name__ == "__main__":
    main()
