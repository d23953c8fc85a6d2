import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml

from histo_mlflow.command_line import run_command
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.store import open_store
from tests.conftest import PROJECT, save_npz
from tuning.search import make_command

SCRIPT = PROJECT / "tuning" / "search.py"


def _search(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        run_command(make_command(), prog_name="search.py", arguments=["--weights", "none", "--repeats", "0", *arguments])
    return int(stopped.value.code or 0)


def test_a_study_leaves_runs_a_table_and_a_configuration_and_goes_on(work: Path, tiny_npz: Path) -> None:
    arguments = ["--data", str(tiny_npz), "--epochs", "1"]
    assert _search(*arguments, "--trials", "1") == 0
    done = subprocess.run(
        [sys.executable, SCRIPT, "--weights", "none", "--repeats", "0", *arguments, "--trials", "3"],
        cwd=work, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
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


def test_a_study_is_not_mixed_with_other_tiles_or_options(
    work: Path, tiny_npz: Path, tiny_tiles: TileSet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _search("--data", str(tiny_npz), "--epochs", "1", "--trials", "1") == 0
    save_npz(work / "other.npz", draw_demo(n_tiles=54, tile_size_px=32, seed=1))
    for arguments, reason in (
        (["--data", str(tiny_npz), "--epochs", "2"], "another epochs"),
        (["--data", "other.npz", "--epochs", "1"], "another data_fingerprint"),
    ):
        assert _search(*arguments, "--trials", "2") == 2
        assert reason in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["--trials", "0"], "trials=0"), (["--data", "gone.npz"], "gone.npz"), (["--storage", "foo"], "storage=foo")],
)
def test_bad_requests_are_one_line(
    tiny_npz: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert _search("--data", str(tiny_npz), *arguments) == 2
    assert reason in capsys.readouterr().err.splitlines()[-1]
