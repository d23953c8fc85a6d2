import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml

from histo_mlflow.tracking.store import open_store
from tests.conftest import PROJECT

SCRIPT = PROJECT / "tuning" / "search.py"


def _search(work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "--weights", "none", *arguments],
        cwd=work, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_a_study_leaves_runs_a_table_and_a_configuration_and_goes_on(work: Path, tiny_npz: Path) -> None:
    for total in (1, 3):
        done = _search(work, "--data", str(tiny_npz), "--trials", str(total), "--epochs", "1")
        assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="histo-b3", storage=f"sqlite:///{work / 'optuna.db'}")
    assert [trial.number for trial in study.get_trials()] == [0, 1, 2], "--trials is the total"
    best = yaml.safe_load((work / "best_config.yaml").read_text())
    assert best["learning_rate"] == study.best_params["learning_rate"]
    assert "-P config=best_config.yaml" in done.stdout
    assert "validation loss" in done.stdout

    client = open_store().client
    runs = client.search_runs(["0"], "tags.`histo.entry_point` = 'tune'")
    trials = {run.info.run_id: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert len(trials) == 3
    for trial in study.get_trials():
        run = trials[trial.user_attrs["mlflow_run_id"]]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["best/val_loss"] == pytest.approx(trial.value)


def test_bad_requests_are_one_line(work: Path) -> None:
    for arguments, reason in ((["--trials", "0"], "trials=0"), (["--data", "gone.npz"], "gone.npz")):
        done = _search(work, *arguments)
        assert done.returncode == 2
        assert reason in done.stderr.splitlines()[-1]
