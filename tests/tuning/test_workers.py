"""Workers that share a study: on SQLite and on PostgreSQL, killed and interrupted."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import optuna
import pytest
import yaml
from optuna.trial import TrialState

from histo_mlflow.jobs.train import Train, train
from histo_mlflow.options import build
from histo_mlflow.tracking.store import open_store
from tests.conftest import PROJECT
from tests.forking import Forks
from tests.servers import postgresql
from tuning.options import SearchOptions
from tuning.study import FINISHED, open_study

pytestmark = pytest.mark.usefixtures("small_network")

SCRIPT = PROJECT / "tuning" / "search.py"


def _command(npz: Path, *arguments: str) -> list[str]:
    given = ["--weights", "none", "--data", str(npz), "--epochs", "1", "--repeats", "0", "--heartbeat", "1", *arguments]
    return [sys.executable, str(SCRIPT), *given]


def _study(storage: str) -> optuna.Study:
    return optuna.load_study(study_name="histo-b3", storage=storage)


def _check_total(storage: str, n_trials: int) -> None:
    """Exactly so many trials are finished, each with a run of its own, and nothing is left open."""
    trials = _study(storage).get_trials()
    finished = [trial for trial in trials if trial.state in FINISHED]
    assert len(finished) == n_trials, [trial.state.name for trial in trials]
    assert len({trial.user_attrs["mlflow_run_id"] for trial in finished}) == n_trials, "no trial was run twice"
    assert not [trial for trial in trials if trial.state in {TrialState.RUNNING, TrialState.WAITING}]
    client = open_store().client
    runs = client.search_runs(["0"], "tags.`histo.entry_point` = 'tune'")
    assert not [run for run in runs if run.info.status == "RUNNING"]
    for trial in finished:
        run = client.get_run(trial.user_attrs["mlflow_run_id"])
        assert run.data.tags["histo.trial"] == str(trial.number)
        assert run.info.status == ("FINISHED" if trial.state == TrialState.COMPLETE else "KILLED")


def test_two_workers_here_share_a_study_exactly(work: Path, tiny_npz: Path, forks: Forks) -> None:
    storage = "sqlite:///optuna.db"
    done = forks.run("tune", *_command(tiny_npz, "--trials", "5", "--jobs", "2")[2:], cwd=work)
    assert done.returncode == 0, done.stderr
    _check_total(storage, 5)
    parents = open_store().client.search_runs(["0"], "tags.`histo.study` = 'histo-b3'")
    assert len(parents) == 1
    assert {
        run["tags.mlflow.parentRunId"] for _, run in mlflow.search_runs(filter_string="tags.`histo.trial` != ''").iterrows()
    } == {parents[0].info.run_id}


@pytest.mark.slow
def test_two_calls_share_a_study_on_postgresql(work: Path, tiny_npz: Path) -> None:
    pytest.importorskip("psycopg")
    with postgresql() as storage:
        first = _command(tiny_npz, "--trials", "1", "--storage", storage)
        assert subprocess.run(first, capture_output=True, timeout=120, check=False).returncode == 0
        command = _command(tiny_npz, "--trials", "5", "--storage", storage)
        workers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
        said = [worker.communicate(timeout=200)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0], said
        _check_total(storage, 5)


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_run_again(work: Path, tiny_npz: Path) -> None:
    storage = "sqlite:///optuna.db"
    long = [*_command(tiny_npz, "--trials", "2"), "--epochs", "40"]
    worker = subprocess.Popen(long, stdout=subprocess.PIPE, text=True)
    _wait_for_epoch(worker)
    worker.kill()
    worker.wait()
    [stale] = _study(storage).get_trials()
    assert stale.state == TrialState.RUNNING
    # The same study goes on with the same options; 40 epochs of 43 tiles take some seconds.
    done = subprocess.run(long, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    _check_total(storage, 2)
    trials = _study(storage).get_trials()
    assert trials[0].state == TrialState.FAIL
    again = [trial for trial in trials[1:] if trial.params == trials[0].params]
    assert len(again) == 1, "the same setting was tried again"
    assert open_store().client.get_run(stale.user_attrs["mlflow_run_id"]).info.status == "FAILED"


@pytest.mark.slow
def test_ctrl_c_leaves_a_clean_state(work: Path, tiny_npz: Path) -> None:
    long = [*_command(tiny_npz, "--trials", "2"), "--epochs", "40"]
    worker = subprocess.Popen(long, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _wait_for_epoch(worker)
    worker.send_signal(signal.SIGINT)
    _, errors = worker.communicate(timeout=60)
    assert worker.returncode == 1
    assert "ended as KILLED" in errors.splitlines()[-1]
    assert [trial.state for trial in _study("sqlite:///optuna.db").get_trials()] == [TrialState.FAIL]
    runs = open_store().client.search_runs(["0"])
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]


def test_the_best_configuration_gives_the_recorded_loss_again(work: Path, tiny_npz: Path, forks: Forks) -> None:
    assert forks.run("tune", *_command(tiny_npz, "--trials", "2")[2:], cwd=work).returncode == 0
    best = yaml.safe_load(Path("best_config.yaml").read_text())
    train(build(Train, {**best, "register": False}))
    [run] = open_store().client.search_runs(["0"], "tags.`histo.entry_point` = 'train'")
    assert run.data.metrics["best/val_loss"] == pytest.approx(_study("sqlite:///optuna.db").best_value, rel=1e-6)


def test_the_search_finds_a_known_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10 seeds at least 8 come nearer to it than the median of as many random draws; by chance 5 would."""
    memory = optuna.storages.InMemoryStorage()  # where trials are kept is not the point
    monkeypatch.setattr("tuning.study._storage", lambda _: memory)
    won, nearest = 0, []
    for seed in range(10):
        losses = {}
        for sampler in ("tpe", "random"):
            options = SearchOptions(study=f"{sampler} {seed}", sampler=sampler)
            study = open_study(options, {"data": "none", "epochs": 20}, seed=seed)
            study.optimize(_bowl, n_trials=30)
            losses[sampler] = study.best_value
        won += losses["tpe"] < losses["random"]
        nearest.append(losses["tpe"])
    assert won >= 8
    # A tenth of the range off in both is a loss of 0.05.
    assert sorted(nearest)[len(nearest) // 2] < 0.05


def _bowl(trial: optuna.Trial) -> float:
    """A synthetic loss with its lowest point at a cutoff of 12 and a learning rate of 1e-3."""
    from math import log10

    from tuning.search_space import Space, suggest

    values = suggest(trial, Space.of(SearchOptions(), epochs=20))
    return float(((values["aug_cutoff"] - 12) / 20) ** 2 + (log10(values["learning_rate"]) + 3) ** 2)


def _wait_for_epoch(worker: subprocess.Popen[str]) -> None:
    assert worker.stdout is not None
    deadline = time.monotonic() + 120
    for line in worker.stdout:
        if "| epoch" in line:
            return
        assert time.monotonic() < deadline
    raise AssertionError("no epoch was ever reported")
