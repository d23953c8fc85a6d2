"""Two calibrated models, their reports, their comparison and their abstention, through the command line on real MLflow."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from histo_mlflow.tiles.demo import draw_demo
from tests.conftest import PROJECT, SIZE_PX, Histo, put_into_production, save_npz

pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture
def trained(work: Path, histo_here: Histo) -> Path:
    """A calibrated version 1, in Production."""
    save_npz(work / "tiles.npz", draw_demo(n_tiles=90, tile_size_px=SIZE_PX))
    save_npz(work / "test.npz", draw_demo(n_tiles=45, tile_size_px=SIZE_PX, seed=1))
    done = histo_here(
        "train", "--data", "tiles.npz", "--weights", "none", "--epochs", "12", "--aug-cutoff", "0", "--batch-size", "9",
        "--learning-rate", "0.01", "--label-smoothing", "0.5", "--calibration", "temperature", "--val-fraction", "0.4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    put_into_production()
    return work


def _run_id(text: str) -> str:
    return re.findall(r"[0-9a-f]{32}", text)[-1]


def test_everything_after_training(trained: Path, histo_here: Histo) -> None:
    client = MlflowClient()
    source_run = client.get_model_version("histo-b3", "1").tags["learnt_in_run"]
    checkpoint = f"runs:/{source_run}/checkpoints/best.safetensors"
    tiles = np.load(trained / "test.npz")["data"]

    def predict(*arguments: str) -> pd.DataFrame:
        done = histo_here("predict", "--data", "test.npz", "--output", "out.csv", *arguments)
        assert done.returncode == 0, done.stderr
        return pd.read_csv(trained / "out.csv")

    # The registered model divides its logits by the temperature; the checkpoint of the same epoch does not.
    folder = Path(mlflow.artifacts.download_artifacts("models:/histo-b3/Production"))
    facts = json.loads((folder / "data" / "model.json").read_text())
    assert facts["is_calibrated"]
    assert facts["temperature"] != 1
    assert sum(map(sum, facts["tiles_per_class"].values())) == 90
    model = mlflow.pyfunc.load_model("models:/histo-b3/Production")
    served, raw = _predict_elsewhere(trained), predict("--model", checkpoint)
    columns = [name for name in served.columns if name.startswith("prob_")]
    logits = torch.log(torch.from_numpy(raw[columns].to_numpy())) / facts["temperature"]
    assert np.abs(torch.softmax(logits, dim=1).numpy() - served[columns].to_numpy()).max() < 1e-5
    assert np.abs(raw[columns].to_numpy() - served[columns].to_numpy()).max() > 1e-3
    assert raw["label"].tolist() == served["label"].tolist(), "no label changes"

    # The report of the training's validation tiles says before and after.
    calibration = json.loads(_artifact(source_run, "evaluation/val/summary.json").read_text())["calibration"]
    assert calibration["is_applied"]
    assert calibration["temperature"] == pytest.approx(facts["temperature"])
    assert calibration["after"]["log_loss"] <= calibration["before"]["log_loss"]

    # An evaluation: looks are counted, robustness is measured, baselines come from the training's run.
    for looks, model_name in (("1 time", checkpoint), ("2 times", "models:/histo-b3/Production")):
        done = histo_here("evaluate", "--model", model_name, "--data", "test.npz", "--robustness", "9")
        assert done.returncode == 0, done.stderr
        assert f"scored {looks} on this set" in done.stdout
    report = _artifact(_run_id(done.stdout), "evaluation/test")
    summary = json.loads((report / "summary.json").read_text())
    assert (summary["looks"], summary["n"]) == (2, 45)
    assert set(summary["baselines"]) == {"majority class", "mean RGB", "colour histogram"}
    assert summary["baselines"]["majority class"]["value"] == pytest.approx(1 / 9)
    robustness = pd.read_csv(report / "robustness.csv")
    assert robustness["change"].value_counts().to_dict() == {
        "symmetry": 7, "JPEG": 4, "hue": 4, "blur": 2, "brightness": 2, "none": 1,
    }  # fmt: skip
    assert set(robustness["n"]) == {9}
    assert robustness["changed"][0] == 0
    page = (report / "report.html").read_text()
    assert not re.findall(r"<script|(?:src|href)=[\"'](?!data:|#)", page)
    for words in (
        ">test, scored here</th>",
        "all tiles</th><td>54</td><td>36</td><td>45",
        "after temperature scaling",
        "mean RGB",
    ):
        assert words in page, words

    # A comparison with the uncalibrated network: the same labels, other probabilities; one page, two more looks.
    done = histo_here("compare", checkpoint, "models:/histo-b3/1", "--data", "test.npz")
    assert done.returncode == 0, done.stderr
    assert "scored 4 times on this set" in done.stdout
    content = json.loads(_artifact(_run_id(done.stdout), "comparison/comparison.json").read_text())
    assert content["values"]["balanced_accuracy"]["b"] == pytest.approx(summary["balanced_accuracy"]["value"])
    assert content["values"]["log_loss"]["b"] == pytest.approx(summary["log_loss"]["value"])
    assert content["values"]["log_loss"]["a"] != pytest.approx(content["values"]["log_loss"]["b"])
    assert (content["n_disagreements"], content["p_value"], content["looks"]) == (0, 1.0, 4)

    # 36 validation tiles can't show 99 % accuracy, so there is no threshold to abstain by.
    assert facts["abstain_below"] is None
    with pytest.raises(MlflowException, match="above any threshold"):
        model.predict(tiles, params={"abstain": True})
    done = histo_here("predict", "--model", checkpoint, "--data", "test.npz", "--output", "out.csv", "--abstain", "true")
    assert done.returncode == 2
    assert "no threshold to abstain by" in done.stderr


def _predict_elsewhere(folder: Path) -> pd.DataFrame:
    """Return what the registered model says in a process that can't import our package."""
    code = (
        "import sys\n"
        "for name in ('histo_mlflow', 'torchvision', 'sklearn'): sys.modules[name] = None\n"
        "import mlflow, numpy as np\n"
        "model = mlflow.pyfunc.load_model('models:/histo-b3/Production')\n"
        "model.predict(np.load('test.npz')['data']).to_csv('elsewhere.csv', index=False)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    subprocess.run([sys.executable, "-P", "-c", code], cwd=folder, env=environment, check=True, timeout=200)
    return pd.read_csv(folder / "elsewhere.csv")


def _artifact(run_id: str, path: str) -> Path:
    return Path(MlflowClient().download_artifacts(run_id, path))


def test_bad_requests(work: Path, histo_here: Histo, tiny_npz: Path) -> None:
    (work / "costs.yaml").write_text("{TUM: {NRM: 1}}")
    for arguments, words in (
        (["train", "--data", tiny_npz, "--weights", "none", "--costs", "costs.yaml"], "no class 'NRM'"),
        (["evaluate", "--data", tiny_npz, "--robustness", "-1"], "robustness=-1"),
        (["train", "--calibration", "platt"], "'none', 'temperature'"),
        (["compare", "models:/none/1", "models:/none/2", "--data", tiny_npz], "models:/none/1"),
    ):
        done = histo_here(*map(str, arguments))
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not MlflowClient().search_runs(["0"]), "nothing was begun"


def test_evaluation_imports_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys; from histo_mlflow.evaluation import baselines, comparison_sections, report_sections;"
        "print([name for name in ('torch', 'mlflow', 'sklearn', 'scipy', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", "and the heavy libraries wait until they are used"
