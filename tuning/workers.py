"""Runs trials until the study has enough, in this process or in several that are started for it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
from optuna.trial import TrialState

from histo_mlflow.errors import NonFiniteLossError, WorkError
from tuning.objective import Objective
from tuning.study import FINISHED, SurplusTrialError, count, reporting_storage_errors

PARENT_VARIABLE = "HISTO_TUNE_PARENT_RUN"
"""Environment variable with the run of the study, by which a process knows that it is a worker of another."""

_WAIT_SECONDS = 1.0
_MAX_FAILURES = 10


def work(study: optuna.Study, objective: Objective, storage: str) -> None:
    """Run trials until `objective.n_trials` are finished, and wait for those of other workers.

    A trial whose worker has died is found here by its missing heartbeat, and run again.

    Raises:
        WorkError: The storage failed, or trial after trial.
    """
    with reporting_storage_errors(storage):
        n_failed_before = count(study, TrialState.FAIL)
        while (n_finished := count(study, *FINISHED)) < objective.n_trials:
            optuna.storages.fail_stale_trials(study)
            if n_finished + count(study, TrialState.RUNNING) >= objective.n_trials:
                time.sleep(_WAIT_SECONDS)  # all are under way; one may yet fail
                continue
            study.optimize(objective, n_trials=1, catch=(NonFiniteLossError, SurplusTrialError))
            if count(study, TrialState.FAIL) - n_failed_before > _MAX_FAILURES + objective.n_trials:
                raise WorkError("trial after trial fails; narrow the ranges in tuning/search_space.py")


def start_workers(n_workers: int, parent_run_id: str) -> None:
    """Start this command `n_workers` times, cores divided among them, and wait; whatever ends this ends them.

    Raises:
        WorkError: One ended otherwise than well. The others have gone on to the end of the study.
    """
    threads = max(1, (os.cpu_count() or 1) // n_workers)
    environment = {**os.environ, PARENT_VARIABLE: parent_run_id, "OMP_NUM_THREADS": str(threads)}
    environment.pop("MLFLOW_RUN_ID", None)
    command = [sys.executable, str(Path(__file__).with_name("search.py")), *sys.argv[1:]]
    workers = [subprocess.Popen(command, env=environment) for _ in range(n_workers)]  # noqa: S603 - our own command again
    try:
        codes = [worker.wait() for worker in workers]
    except BaseException:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.wait()
        raise
    if all(codes):
        raise WorkError(f"all {n_workers} workers failed; what they said is above")
