"""The whole way through the command line on real MLflow: cross-validate, evaluate, predict, load elsewhere."""

import contextlib
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from PIL import Image

from histo_mlflow.cli import main
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES
from histo_mlflow.tracking.kept import state_of
from tests.conftest import PROJECT, PYTHONPATH, SIZE_PX, put_into_production, save_npz
from tests.small_network import SMALL_NETWORK

EVALUATION_FILES = {
    "confusion_matrix.png", "confusion_matrix.csv", "per_class.csv", "predictions.npz", "summary.json", "report.html",
    "roc_pr.png", "calibration.png", "risk_coverage.png", "errors.csv", "gallery.png", "baselines.csv",
}  # fmt: skip
EPOCH_FIGURES = ("loss", "accuracy", "balanced_accuracy", "macro_f1")


class Story:
    """A working folder in which `cv` has run, with two folds of two epochs and a test set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")} | {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "HISTO_CACHE_DIR": str(folder / "cache"),
            "PYTHONPATH": PYTHONPATH,
        }
        self.client = MlflowClient(self.uri)
        save_npz(folder / "tiles.npz", draw_demo(n_tiles=54, tile_size_px=SIZE_PX), compressed=True)
        save_npz(folder / "test.npz", draw_demo(n_tiles=27, tile_size_px=40, seed=1))

    def histo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line in this process, which saves the seconds that a new one spends on imports."""
        out, err = io.StringIO(), io.StringIO()
        mlflow.set_tracking_uri(self.uri)
        with (
            contextlib.chdir(self.folder),
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as stopped,
        ):
            patch.setenv("HISTO_CACHE_DIR", self.environment["HISTO_CACHE_DIR"])
            main(arguments)
        return subprocess.CompletedProcess(arguments, stopped.value.code or 0, out.getvalue(), err.getvalue())

    def runs(self, entry_point: str) -> list[Run]:
        found = self.client.search_runs(["0"], f"tags.`histo.entry_point` = '{entry_point}'")
        return sorted(found, key=lambda run: run.info.start_time)

    def artifacts(self, run_id: str, folder: str = "") -> set[str]:
        return {item.path.rsplit("/", 1)[-1] for item in self.client.list_artifacts(run_id, folder)}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    told = Story(tmp_path_factory.mktemp("story"))
    done = subprocess.run(
        [
            sys.executable, "-m", "histo_mlflow", "cv", "--data", "tiles.npz", "--test-data", "test.npz", "--weights", "none",
            "--folds", "2", "--epochs", "2", "--aug-cutoff", "1", "--batch-size", "9", "--learning-rate", "1e-4",
        ],
        cwd=told.folder, env=told.environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told.output = done.stdout  # type: ignore[attr-defined]
    mlflow.set_tracking_uri(told.uri)
    put_into_production()
    return told


@pytest.fixture(scope="module")
def parent(story: Story) -> Run:
    return next(run for run in story.runs("cv") if "mlflow.parentRunId" not in run.data.tags)


@pytest.fixture(scope="module")
def folds(story: Story, parent: Run) -> list[Run]:
    return [run for run in story.runs("cv") if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]


def test_cv_prints_a_table_the_version_and_what_to_do_next(story: Story) -> None:
    output = story.output  # type: ignore[attr-defined]
    assert "fold  " in output
    assert [line.split()[0] for line in output.splitlines() if line.startswith(("mean ", "sd "))] == ["mean", "sd"]
    assert re.search(r"models:/histo-b3/1, a candidate: (No better than chance|Worse than what colour)", output)
    assert "histo promote --version 1 --model-name histo-b3 --force --reason TEXT" in output
    (run_id,) = set(re.findall(r"^run (\w{8}): tiles efficientnet_b3", output, re.MULTILINE))
    page = rf"mlflow ui    then http://127\.0\.0\.1:5000/#/experiments/0/runs/{run_id}\w{{24}}\?workflowType=machine_learning"
    assert len(re.findall(page, output)) == 2, "at the beginning and at the end"
    (report,) = re.findall(r"^report: (.*)$", output, re.MULTILINE)
    assert Path(report).is_file()
    assert re.search(r"^next:   \w", output, re.MULTILINE)


def test_every_run_ended_well_under_one_parent(story: Story, folds: list[Run], parent: Run) -> None:
    assert len(folds) == 2
    assert {run.info.status for run in [*folds, parent]} == {"FINISHED"}
    assert parent.data.params["learning_rate"] == "0.0001"
    for run in [*folds, parent]:
        tags = run.data.tags
        assert tags.get("mlflow.user") or parent.data.tags.get("mlflow.user")
        assert set(tags) >= {"histo.entry_point", "histo.process", "histo.alive", "histo.ended"}
        assert len([name for name in tags if not name.startswith("mlflow.")]) <= 14, "a person is to read them"
    notes = json.loads(Path(story.client.download_artifacts(parent.info.run_id, "about.json")).read_text())
    assert {"command", "git_commit", "torch", "mlflow", "split_by", "selected"} <= set(notes)
    assert notes["seed"] == 0
    assert len(parent.data.tags["histo.data_fingerprint"]) == 64


def test_metrics_of_the_contract(story: Story, folds: list[Run], parent: Run) -> None:
    for run in folds:
        for name in [*(f"{split}/{figure}" for split in ("val", "test") for figure in EPOCH_FIGURES), "train/loss",
                     "train/accuracy", "learning_rate", "train/tiles_per_second"]:  # fmt: skip
            assert [metric.step for metric in story.client.get_metric_history(run.info.run_id, name)] == [1, 2], name
        assert {"best/epoch", "best/val_loss"} <= run.data.metrics.keys()
        for name in COLORECTAL_CLASSES:
            assert {f"val/sensitivity/{name}", f"val/specificity/{name}", f"test/sensitivity/{name}"} <= run.data.metrics.keys()
    metrics = parent.data.metrics
    figures = ("accuracy", "balanced_accuracy", "loss")
    assert {f"cv/{name}/{kind}" for name in figures for kind in ("mean", "sd")} <= metrics.keys()
    assert {"oof/accuracy", "oof/balanced_accuracy"} <= metrics.keys()


def test_pooled_figures_are_those_of_the_pooled_predictions(story: Story, folds: list[Run], parent: Run) -> None:
    local = Path(story.client.download_artifacts(parent.info.run_id, "evaluation/oof"))
    with np.load(local / "predictions.npz") as pooled:
        accuracy = (pooled["labels"] == pooled["predicted"]).mean()
        assert pooled["indices"].tolist() == list(range(54))
        np.testing.assert_array_equal(pooled["labels"], draw_demo(n_tiles=54, tile_size_px=SIZE_PX).labels)
        for run in folds:
            with np.load(Path(story.client.download_artifacts(run.info.run_id, "evaluation/val")) / "predictions.npz") as part:
                np.testing.assert_array_equal(pooled["probabilities"][part["indices"]], part["probabilities"])
    assert parent.data.metrics["oof/accuracy"] == pytest.approx(accuracy)
    table = pd.read_csv(story.client.download_artifacts(parent.info.run_id, "folds.csv"))
    assert parent.data.metrics["cv/loss/mean"] == pytest.approx(table["loss"].mean())
    assert parent.data.metrics["cv/loss/sd"] == pytest.approx(table["loss"].std(ddof=1))
    best = table.loc[table["loss"].idxmin()]
    assert parent.data.tags["histo.best_fold"] == str(int(best["fold"]))
    version = story.client.get_model_version("histo-b3", "1")
    assert (version.run_id, version.tags["learnt_in_run"]) == (parent.info.run_id, best["run_id"])
    assert version.tags["best_fold"] == str(int(best["fold"]))
    models = [output.model_id for output in parent.outputs.model_outputs]
    assert [f"models:/{model_id}" for model_id in models] == [parent.data.tags["histo.model_uri"]], "its page shows the model"


def test_runs_are_told_apart_by_name_and_begin_with_the_verdict(story: Story, folds: list[Run], parent: Run) -> None:
    given = "weights=none epochs=2 learning_rate=0.0001 batch_size=9 +1"
    assert re.fullmatch(rf"tiles efficientnet_b3 2-fold {re.escape(given)} oof 0\.\d{{3}}", parent.info.run_name)
    for number, run in enumerate(folds, start=1):
        assert re.fullmatch(rf"fold {number} test 0\.\d{{3}}", run.info.run_name)
    whole, of_fold = (run.data.tags["mlflow.note.content"] for run in (parent, folds[0]))
    pages = f"#/experiments/0/runs/{parent.info.run_id}"
    verdict, figures, *_ = whole.split("\n\n")
    assert re.match(r"\*\*[✓✗!?] \w+", verdict)
    assert re.match(r"54 out-of-fold tiles: balanced accuracy 0\.\d+ \(.* to .*\), log loss ", figures)
    assert f"[Report]({pages}/artifacts/evaluation/oof/report.html?workflowType=machine_learning)" in figures
    assert "[Model histo-b3 version 1](#/models/histo-b3/versions/1" in figures
    assert all(f"[{number}](#/experiments/0/runs/{run.info.run_id}" in whole for number, run in enumerate(folds, start=1))
    assert f"[Cross-validation]({pages}?workflowType=machine_learning)" in of_fold
    assert f"({pages.replace(parent.info.run_id, folds[0].info.run_id)}/artifacts/evaluation/test/report.html?" in of_fold


def test_a_few_metrics_stand_for_a_run(story: Story, folds: list[Run], parent: Run) -> None:
    oof = json.loads(Path(story.client.download_artifacts(parent.info.run_id, "evaluation/oof/summary.json")).read_text())
    shown = {name.partition("/")[2]: value for name, value in parent.data.metrics.items() if name.startswith("at_a_glance/")}
    balanced = oof["balanced_accuracy"]
    assert {name: shown[f"balanced_accuracy{name}"] for name in ("", "_low", "_high")} == {
        "": pytest.approx(balanced["value"]), "_low": pytest.approx(balanced["low"]), "_high": pytest.approx(balanced["high"]),
    }  # fmt: skip
    assert shown["chance"] == pytest.approx(1 / 9)
    assert 0 < shown["colour_alone"] < 1
    assert shown["log_loss"] == pytest.approx(oof["log_loss"]["value"])
    for run in folds:
        assert min(run.data.metrics) == "at_a_glance/balanced_accuracy", "by the alphabet they come first"
        tests = json.loads(Path(story.client.download_artifacts(run.info.run_id, "evaluation/test/summary.json")).read_text())
        figure = run.data.metrics["at_a_glance/balanced_accuracy"]
        assert figure == pytest.approx(tests["balanced_accuracy"]["value"]), "a test set tells more than validation tiles"


def test_artifacts_of_the_contract(story: Story, folds: list[Run], parent: Run) -> None:
    assert story.artifacts(parent.info.run_id) >= {"config.yaml", "split.npz", "curves.png", "folds.csv", "evaluation"}
    assert story.artifacts(parent.info.run_id, "evaluation/oof") == EVALUATION_FILES
    for run in folds:
        run_id = run.info.run_id
        assert story.artifacts(run_id) >= {"config.yaml", "split.npz", "curves.png", "checkpoints", "evaluation"}
        assert story.artifacts(run_id, "checkpoints") == {
            "epoch_001.safetensors", "epoch_002.safetensors", "best.safetensors", "last.pt",
        }  # fmt: skip
        assert story.artifacts(run_id, "evaluation/val") == story.artifacts(run_id, "evaluation/test") == EVALUATION_FILES
        torch.load(story.client.download_artifacts(run_id, "checkpoints/last.pt"), weights_only=True)
        assert {item.dataset.name.split()[-1] for item in run.inputs.dataset_inputs} == {"train", "val", "test"}
    assert yaml.safe_load(Path(story.client.download_artifacts(parent.info.run_id, "config.yaml")).read_text())["folds"] == 2


def test_folds_are_kept_with_the_runs(story: Story, folds: list[Run], parent: Run) -> None:
    with np.load(story.client.download_artifacts(parent.info.run_id, "split.npz")) as saved:
        fold_of_tile = saved["fold"]
    for number, run in enumerate(folds, start=1):
        with np.load(story.client.download_artifacts(run.info.run_id, "split.npz")) as saved:
            assert saved["val"].tolist() == np.flatnonzero(fold_of_tile == number).tolist()
            assert saved["train"].tolist() == np.flatnonzero(fold_of_tile != number).tolist()


def test_looks_at_the_test_set_are_counted(story: Story, folds: list[Run]) -> None:
    looks = []
    for run in folds:
        local = story.client.download_artifacts(run.info.run_id, "evaluation/test/summary.json")
        looks.append(json.loads(Path(local).read_text())["looks"])
    assert looks == [3, 6], "two epochs and the end, in each fold"


def test_evaluate_scores_a_version_a_run_and_an_epoch(story: Story, folds: list[Run]) -> None:
    epoch = f"runs:/{folds[0].info.run_id}/checkpoints/epoch_001.safetensors"
    for model in ("models:/histo-b3/Production", folds[0].info.run_id, epoch):
        done = story.histo("evaluate", "--model", model, "--data", "test.npz", "--robustness", "0")
        assert done.returncode == 0, done.stderr
    runs = story.runs("evaluate")
    assert len(runs) == 3
    for run in runs:
        assert run.info.status == "FINISHED"
        assert story.artifacts(run.info.run_id, "evaluation/test") == EVALUATION_FILES
        assert {f"test/{name}" for name in EPOCH_FIGURES} <= run.data.metrics.keys()
    summary = json.loads(
        Path(story.client.download_artifacts(runs[-1].info.run_id, "evaluation/test/summary.json")).read_text()
    )
    assert summary["looks"] == 9
    first_epoch = story.client.get_metric_history(folds[0].info.run_id, "test/loss")[0].value
    assert runs[-1].data.metrics["test/loss"] == pytest.approx(first_epoch, rel=1e-4)


def test_predict_equals_both_flavours_elsewhere_for_any_number_of_tiles(story: Story) -> None:
    """In a process that can't import our package, far from the project, with unpickling forbidden."""
    done = story.histo("predict", "--data", "test.npz", "--output", "out.csv")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(story.folder / "out.csv")
    assert list(table.columns) == ["index", "label", *(f"prob_{name}" for name in COLORECTAL_CLASSES)]
    assert len(table) == 27

    code = f"""
import sys
for name in ("histo_mlflow", "torchvision", "sklearn", "safetensors"):
    sys.modules[name] = None
import mlflow, numpy as np, pandas as pd, torch
tiles = np.load({str(story.folder / "test.npz")!r})["data"]
served = mlflow.pyfunc.load_model("models:/histo-b3/Production")
network = mlflow.pytorch.load_model("models:/histo-b3@champion")
expected = pd.read_csv({str(story.folder / "out.csv")!r})
names = [name for name in expected if name.startswith("prob_")]
for n in (1, 2, 7, 27):
    table = served.predict(tiles[:n])
    assert list(table.columns) == ["label", *names], table
    assert table["label"].tolist() == expected["label"][:n].tolist()
    assert np.abs(table[names].to_numpy() - expected[names][:n].to_numpy()).max() < 1e-4
    with torch.inference_mode():
        raw = torch.softmax(network(torch.from_numpy(tiles[:n])), dim=1).numpy()
    assert np.abs(raw - expected[names][:n].to_numpy()).max() < 1e-4
for floats in (tiles / 255, (tiles / 255).astype(np.float32)):
    for model in (served.predict, lambda array: network(torch.from_numpy(array))):
        try:
            model(floats)
        except Exception as error:
            print("refused:", type(error).__name__)
        else:
            raise SystemExit("float tiles were taken")
"""
    elsewhere = story.folder / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in story.environment.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=elsewhere, capture_output=True, text=True, timeout=240, check=False,
        env={**environment, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused:") == 4


def test_a_logged_model_holds_no_pickle_and_its_facts(story: Story, folds: list[Run]) -> None:
    local = Path(mlflow.artifacts.download_artifacts("models:/histo-b3/Production", tracking_uri=story.uri))
    facts = json.loads((local / "data" / "model.json").read_text())
    assert facts["classes"] == list(COLORECTAL_CLASSES)
    assert (facts["tile_size_px"], facts["microns_per_pixel"], facts["is_synthetic"]) == (SIZE_PX, None, False)
    assert not [path for path in local.rglob("*") if path.suffix in {".pkl", ".pth", ".pickle"}]
    assert not (local / "input_example.json").exists()
    description = story.client.get_model_version("histo-b3", "1").description
    for words in ("not for diagnosis", "ADI BACK DEB", facts["data_fingerprint"], "mlflow.pyfunc.load_model"):
        assert words in description


def test_predict_of_a_folder_goes_past_a_broken_file(story: Story) -> None:
    (story.folder / "images").mkdir()
    for k, image in enumerate(draw_demo(n_tiles=3, tile_size_px=SIZE_PX).images):
        Image.fromarray(image).save(story.folder / "images" / f"{k}.png")
    (story.folder / "images" / "1.png").write_text("broken")
    done = story.histo("predict", "--data", "images", "--output", "folder.csv")
    assert done.returncode == 1
    assert "1.png" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("Error: 1 of 3 images could not be read")
    assert pd.read_csv(story.folder / "folder.csv")["path"].tolist() == ["images/0.png", "images/2.png"]


def test_predict_to_a_full_disk(story: Story) -> None:
    done = story.histo("predict", "--data", "test.npz", "--output", "/dev/full")
    assert done.returncode == 1
    assert done.stderr.rstrip().splitlines()[-1].startswith("Error: No space left on device")


def test_train_with_an_incumbent_leaves_production_alone(story: Story) -> None:
    """Under `mlflow run`, whose spelling of the parameters must survive."""
    done = subprocess.run(
        [
            Path(sys.executable).with_name("mlflow"), "run", PROJECT, "-e", "train", "--env-manager", "local",
            "-P", f"data={story.folder / 'tiles.npz'}", "-P", "weights=none", "-P", "epochs=1", "-P", "learning_rate=1e-3",
        ],
        cwd=story.folder, capture_output=True, text=True, timeout=280, check=False,
        env={**story.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", SMALL_NETWORK: "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Production stays version 1" in done.stdout
    assert "models:/histo-b3@candidate" in done.stdout
    (run,) = story.runs("train")
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "1e-3"
    assert run.data.params["register"] == "true"
    assert str(story.client.get_model_version_by_alias("histo-b3", "candidate").version) == "2"
    assert str(story.client.get_model_version_by_alias("histo-b3", "Production").version) == "1"


def test_options_come_back_from_a_runs_config(story: Story, parent: Run) -> None:
    config = story.client.download_artifacts(parent.info.run_id, "config.yaml")
    done = story.histo("cv", "--config", config, "--folds", "9")
    assert done.returncode == 2, "fewer tiles of a class than 9 folds: so the yaml's tiles and the given folds were used"
    assert "folds=9" in done.stderr


def _wait_for(condition: Callable[[], bool], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.3)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted_cross_validation_ends_every_run_as_killed(story: Story, number: signal.Signals) -> None:
    before = {run.info.run_id for run in story.runs("cv")}

    def new_runs() -> list[Run]:
        return [run for run in story.runs("cv") if run.info.run_id not in before]

    with subprocess.Popen(
        [sys.executable, "-m", "histo_mlflow", "cv", "--data", "tiles.npz", "--weights", "none", "--epochs", "500"],
        cwd=story.folder, env={**story.environment, SMALL_NETWORK: "true"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        _wait_for(lambda: any(run.data.metrics for run in new_runs()), seconds=120)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert number.name in error
    assert [run.info.status for run in new_runs()] == ["KILLED", "KILLED"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "whole_group"),
    [
        (signal.SIGTERM, False),
        pytest.param(signal.SIGINT, True, id="Ctrl-C in a terminal"),
        pytest.param(signal.SIGTERM, True, id="a scheduler's SIGTERM"),
    ],
)
def test_ending_mlflow_run_ends_its_runs_as_killed(story: Story, number: signal.Signals, whole_group: bool) -> None:
    before = {run.info.run_id for run in story.runs("cv")}

    def new_runs() -> list[Run]:
        return [run for run in story.runs("cv") if run.info.run_id not in before]

    with subprocess.Popen(
        [
            Path(sys.executable).with_name("mlflow"), "run", PROJECT, "-e", "cv", "--env-manager", "local",
            "-P", f"data={story.folder / 'tiles.npz'}", "-P", "weights=none", "-P", "epochs=500",
        ],
        cwd=story.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**story.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    ) as process:  # fmt: skip
        _wait_for(lambda: any(run.data.metrics for run in new_runs()), seconds=150)
        if whole_group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.wait(timeout=60)
        # MLflow's label may say FAILED: that `mlflow run` has failed.
        _wait_for(lambda: [state_of(run) for run in new_runs()] == ["KILLED"] * 2, seconds=60)


def test_a_disk_that_fills_up_fails_the_run_and_keeps_what_was_done(story: Story) -> None:
    before = {run.info.run_id for run in story.runs("train")}
    limit = 20 * 2**20  # no file may grow past 20 MiB, which a checkpoint does
    done = subprocess.run(
        [sys.executable, "-m", "histo_mlflow", "train", "--data", "tiles.npz", "--weights", "none", "--epochs", "1"],
        cwd=story.folder, env=story.environment, capture_output=True, text=True, timeout=240, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1
    assert "check disk space" in done.stderr.splitlines()[-1]
    (run,) = [run for run in story.runs("train") if run.info.run_id not in before]
    assert run.info.status == "FAILED"
    assert "train/loss" in run.data.metrics
    assert story.client.get_model_version("histo-b3", "1").status == "READY"


def test_nothing_is_left_running(story: Story) -> None:
    try:
        running = story.client.search_runs(["0"], "attributes.status = 'RUNNING'")
    except MlflowException as error:  # pragma: no cover - the message is the point
        pytest.fail(str(error))
    assert running == []
