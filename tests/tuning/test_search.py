import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml

from histo_mlflow.cli import run_command
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.store import open_store
from tests.conftest import PROJECT, save_npz
from tests.feature_writers import draw_features
from tuning.search import make_command
from tuning.search_space import Space

pytestmark = pytest.mark.usefixtures("small_network")

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
    assert f"-P config={work / 'best_config.yaml'}" in done.stdout
    assert f"study: sqlite:///{work / 'optuna.db'}, histo-b3" in done.stdout
    cost, last = (
        "study histo-b3: 2 of 3 trials to go, each 1 epochs on 43 tiles: 2 epochs at most",
        "3 of 3 trials are finished",
    )
    assert cost in done.stdout
    assert last in done.stdout
    assert done.stdout.index(cost) < done.stdout.index("trial 1 | epoch 1/1") < done.stdout.index(last)
    assert re.search(
        r"trial 1: validation loss \d\.\d+(, the lowest so far| \(lowest so far .*\)); 2 of 3 .*about \d+ s left", done.stdout
    )

    client = open_store().client
    runs = client.search_runs(["0"], "tags.`histo.entry_point` = 'tune'")
    trials = {run.info.run_id: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert len(trials) == 3
    for trial in study.get_trials():
        run = trials[trial.user_attrs["mlflow_run_id"]]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["best/val_loss"] == pytest.approx(trial.value)
        assert run.info.run_name == f"trial {trial.number} loss {trial.value:.4f}"
    parent = next(run for run in runs if run.info.run_id not in trials)
    assert parent.info.run_name == f"study histo-b3 loss {study.best_value:.4f}"
    assert f"runs/{parent.info.run_id}?workflowType=machine_learning" in done.stdout


def test_a_hopeless_trial_is_pruned_and_its_run_says_so(work: Path, tiny_npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After three trials better than any training could be, whatever comes next is stopped as soon as the rule allows."""
    arguments = ["--data", str(tiny_npz), "--epochs", "6"]
    assert _search(*arguments, "--trials", "1") == 0
    study = optuna.load_study(study_name="histo-b3", storage="sqlite:///optuna.db")
    [real] = study.get_trials()
    for _ in range(3):
        study.add_trial(
            optuna.trial.create_trial(
                value=1e-6, params=real.params, distributions=real.distributions, user_attrs=real.user_attrs,
                intermediate_values=dict.fromkeys(range(1, 7), 1e-6),
            )
        )  # fmt: skip
    assert _search(*arguments, "--trials", "5") == 0
    pruned = study.get_trials()[-1]
    assert pruned.state == optuna.trial.TrialState.PRUNED
    assert list(pruned.intermediate_values) == [1, 2], "the first third of the epochs is not judged by"
    run = open_store().client.get_run(pruned.user_attrs["mlflow_run_id"])
    assert run.info.status == "KILLED"
    assert run.data.tags["pruned"] == "true"
    assert re.search(r"trial 4: pruned after step 2 of 6, at \d\.\d+ \(lowest so far 0.0000\); 5 of 5", capsys.readouterr().out)
    assert "error" not in run.data.tags or "TrialPruned" in run.data.tags["error"]


def test_the_best_values_are_trained_with_and_registered(work: Path, tiny_npz: Path) -> None:
    assert _search("--data", str(tiny_npz), "--epochs", "1", "--trials", "2", "--train-best", "true") == 0
    study = optuna.load_study(study_name="histo-b3", storage="sqlite:///optuna.db")
    client = open_store().client
    [version] = client.search_model_versions("name = 'histo-b3'")
    trained = client.get_run(version.run_id)
    assert trained.data.tags["histo.entry_point"] == "train"
    assert float(trained.data.params["learning_rate"]) == pytest.approx(study.best_params["learning_rate"])
    assert int(trained.data.params["aug_cutoff"]) == study.best_params["aug_cutoff"]
    assert trained.data.metrics["best/val_loss"] == pytest.approx(study.best_value, rel=1e-6)


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
    [
        (["--trials", "0"], "trials=0"),
        (["--folds", "1"], "folds=1"),
        (["--folds", "2", "--pruner", "hyperband"], "pruner=hyperband"),
        (["--jobs", "0"], "jobs=0"),
        (["--search", "layer_decay,batch_size"], "search=batch_size: has no range; those that have are aug_cutoff"),
        (["--search", ","], "search=: nothing is searched"),
        (["--search", "backbone"], "search=backbone: give the ones to choose from"),
        (["--search", "trainable", "--epochs", "1"], "search=trainable: gradual takes at least 2 epochs"),
        (["--search", "layer_decay", "--layer-decay", "0.9"], "layer_decay is searched and can't be given"),
        (["--trainable", "head"], "search=aug_cutoff: has no meaning with trainable=head"),
        (["--search", "head_cost"], "search=head_cost: has no meaning with trainable=all"),
        (["--data", "gone.npz"], "gone.npz"),
        (["--storage", "foo"], "storage=foo"),
    ],
)
def test_bad_requests_are_one_line(
    tiny_npz: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert _search("--data", str(tiny_npz), *arguments) == 2
    assert reason in capsys.readouterr().err.splitlines()[-1]


def test_heads_over_features_are_searched(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.arange(80) % 2
    features = np.concatenate([draw_features(label, 1, seed=k) for k, label in enumerate(labels)])
    np.savez(work / "f.npz", features=features, labels=labels, classes=np.array(["x", "y"]))
    assert _search("--data", "f.npz", "--search", "head_cost,class_weights", "--trials", "6", "--train-best", "true") == 0
    study = optuna.load_study(study_name="histo-b3", storage="sqlite:///optuna.db")
    costs = {trial.params["head_cost"]: trial.value for trial in study.get_trials()}
    assert len(costs) == 6
    assert len(set(costs.values())) > 1
    client = open_store().client
    [best] = client.search_runs(["0"], "tags.`histo.entry_point` = 'train'")
    assert float(best.data.params["head_cost"]) == pytest.approx(study.best_params["head_cost"])
    assert best.data.metrics["best/val_loss"] == pytest.approx(study.best_value)
    assert best.data.params["backbone"] == "features:16"
    for arguments, reason in (
        (["--search", "learning_rate"], "search=learning_rate: has no meaning with trainable=head; give --search head_cost"),
        (["--search", "head_cost", "--backbones", "lite0"], "data holds features"),
    ):
        assert _search("--data", "f.npz", *arguments) == 2
        assert reason in capsys.readouterr().err.splitlines()[-1]


def test_how_a_network_learns_is_searched_too(work: Path, tiny_npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(tiny_npz), "--epochs", "2", "--sampler", "random", "--search", "trainable, layer_decay"]
    assert _search(*arguments, "--trials", "4", "--repeats", "2") == 0
    said = capsys.readouterr().out
    study = optuna.load_study(study_name="histo-b3", storage="sqlite:///optuna.db")
    trials = study.get_trials()
    assert {trial.params["trainable"] for trial in trials} == {"all", "gradual"}
    assert all(trial.params.keys() == {"trainable", "layer_decay"} for trial in trials)
    assert f"trial 0: trainable={trials[0].params['trainable']}, layer_decay={trials[0].params['layer_decay']:.4g}" in said
    client = open_store().client
    for trial in trials:
        params = client.get_run(trial.user_attrs["mlflow_run_id"]).data.params
        assert (params["trainable"], params["learning_rate"]) == (trial.params["trainable"], "0.001")
        assert float(params["layer_decay"]) == trial.params["layer_decay"]
    [usual, _] = client.search_runs(["0"], "tags.`histo.repeat` = 'default'")
    assert (usual.data.params["trainable"], usual.data.params["layer_decay"]) == ("all", "1.0")
    best = yaml.safe_load((work / "best_config.yaml").read_text())
    assert {name: best[name] for name in study.best_params} == study.best_params
    assert _search(*arguments[:-1], "layer_decay", "--trials", "5") == 2
    assert "another search_space" in capsys.readouterr().err.splitlines()[-1]


def test_the_backbone_is_chosen_from_those_that_are_named(
    work: Path, tiny_npz: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("torchvision:mobilenet_v3_small", "torchvision:shufflenet_v2_x0_5")
    arguments = ["--data", str(tiny_npz), "--epochs", "1", "--sampler", "random", "--search", "learning_rate"]
    arguments += ["--backbones", ", ".join(names), "--trials", "4", "--repeats", "2"]
    assert _search(*arguments) == 0
    study = optuna.load_study(study_name="histo-b3", storage="sqlite:///optuna.db")
    assert {trial.params["backbone"] for trial in study.get_trials()} == set(names)
    client = open_store().client
    for trial in study.get_trials():
        assert client.get_run(trial.user_attrs["mlflow_run_id"]).data.params["backbone"] == trial.params["backbone"]
    usual = client.search_runs(["0"], "tags.`histo.repeat` = 'default'")
    assert {run.data.params["backbone"] for run in usual} == {names[0]}, "the first that is named"
    assert yaml.safe_load((work / "best_config.yaml").read_text())["backbone"] == study.best_params["backbone"]
    assert _search(*arguments[:-4], "--study", "other", "--backbones", f"{names[0]},timm:nothing") == 2
    assert "nothing" in capsys.readouterr().err.splitlines()[-1]
    assert "other" not in optuna.get_all_study_names("sqlite:///optuna.db"), "found before anything begins"


def test_heads_are_searched_over_backbones_and_augmentation(work: Path, tiny_npz: Path) -> None:
    names = ("torchvision:mobilenet_v3_small", "torchvision:shufflenet_v2_x0_5")
    arguments = ["--data", str(tiny_npz), "--trainable", "head", "--search", "augment", "--backbones", ",".join(names)]
    assert _search(*arguments, "--sampler", "random", "--trials", "5") == 0
    study = optuna.load_study(study_name="histo-b3", storage="sqlite:///optuna.db")
    params = [trial.params for trial in study.get_trials()]
    assert {each["backbone"] for each in params} == set(names)
    assert len({each["augment"] for each in params}) > 1
    best = yaml.safe_load((work / "best_config.yaml").read_text())
    assert {name: best[name] for name in ("trainable", *study.best_params)} == {"trainable": "head", **study.best_params}


def test_a_study_with_another_direction_or_other_ranges_is_refused(
    work: Path, tiny_npz: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    optuna.create_study(storage="sqlite:///optuna.db", study_name="up", direction="maximize")
    assert _search("--data", str(tiny_npz), "--study", "up") == 2
    assert "was made to maximize" in capsys.readouterr().err.splitlines()[-1]
    assert _search("--data", str(tiny_npz), "--epochs", "1", "--trials", "1") == 0

    def other(trial: optuna.trial.BaseTrial, _: Space) -> dict[str, float]:
        return {"learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)}

    monkeypatch.setattr("tuning.study.suggest", other)
    assert _search("--data", str(tiny_npz), "--epochs", "1", "--trials", "2") == 2
    assert "another search_space" in capsys.readouterr().err.splitlines()[-1]

    def upside_down(trial: optuna.trial.BaseTrial, _: Space) -> dict[str, float]:
        return {"learning_rate": trial.suggest_float("learning_rate", 1e-2, 1e-4, log=True)}

    monkeypatch.setattr("tuning.study.suggest", upside_down)
    assert _search("--data", str(tiny_npz), "--epochs", "1", "--trials", "2") == 2
    assert "search_space.py" in capsys.readouterr().err.splitlines()[-1]


def test_a_locked_database_is_one_line(
    work: Path, tiny_npz: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    assert _search("--data", str(tiny_npz), "--epochs", "1", "--trials", "1") == 0
    monkeypatch.setattr("tuning.study._LOCK_SECONDS", 1)
    with sqlite3.connect("optuna.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert _search("--data", str(tiny_npz), "--epochs", "1", "--trials", "2") == 1
    other.close()
    assert "locked" in capsys.readouterr().err.splitlines()[-1]


def test_folds_are_averaged_and_the_report_says_what_is_noise(work: Path, tiny_npz: Path) -> None:
    arguments = [
        "--weights",
        "none",
        "--data",
        str(tiny_npz),
        "--epochs",
        "1",
        "--trials",
        "2",
        "--folds",
        "2",
        "--repeats",
        "2",
    ]
    with pytest.raises(SystemExit) as stopped:
        run_command(make_command(), prog_name="search.py", arguments=arguments)
    assert not stopped.value.code
    client = open_store().client
    [parent] = client.search_runs(["0"], "tags.`histo.study` != ''")
    assert "95 % interval" in parent.data.tags["mlflow.note.content"]
    assert len(client.search_runs(["0"], "tags.`histo.repeat` = 'best'")) == 2
    kept = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert kept >= {"best_config.yaml", "trials.csv", "optimization_history.png", "intermediate_values.png"}
    study = optuna.load_study(study_name="histo-b3", storage="sqlite:///optuna.db")
    for trial in study.get_trials():
        assert trial.value == pytest.approx(np.mean(list(trial.intermediate_values.values()))), "the mean over folds"
