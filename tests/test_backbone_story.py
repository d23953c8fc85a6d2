"""A network of timm's goes the way of the default: cross-validated, judged by the gate, loaded elsewhere."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient

from histo_mlflow.tiles.demo import draw_demo
from tests.conftest import SIZE_PX, Histo, put_into_production, save_npz
from tests.elsewhere import probabilities_elsewhere

_LEARN = ("--data", "tiles.npz", "--weights", "none", "--epochs", "1", "--batch-size", "9")


def test_it_goes_the_whole_way(work: Path, small_network: None, histo_here: Histo) -> None:
    save_sets(work)
    done = histo_here("train", *_LEARN)
    assert done.returncode == 0, done.stderr
    put_into_production()
    go_the_whole_way("timm:resnet10t", work, histo_here)


def save_sets(work: Path) -> None:
    """Save tiles to learn from and others to judge on."""
    save_npz(work / "tiles.npz", draw_demo(n_tiles=54, tile_size_px=SIZE_PX))
    save_npz(work / "test.npz", draw_demo(n_tiles=90, tile_size_px=SIZE_PX, seed=1))


def go_the_whole_way(name: str, work: Path, histo_here: Histo) -> pd.DataFrame:
    """Learn, register, judge beside version 1, load elsewhere, export, and return what version 2 says of the test tiles."""
    done = histo_here("cv", *_LEARN, "--backbone", name, "--folds", "2", "--test-data", "test.npz")
    assert done.returncode == 0, done.stderr
    assert "Registered as models:/histo-b3/2" in done.stdout

    client = MlflowClient()
    version = client.get_model_version("histo-b3", "2")
    assert name in version.description.replace("\\", ""), "the card escapes underscores"
    run = client.get_run(version.run_id)
    assert run.data.params["backbone"] == name
    learnt_in = version.tags["learnt_in_run"]
    assert mlflow.artifacts.load_dict(f"runs:/{learnt_in}/about.json")["weights_sha256"] is None
    history = histo_here("history").stdout
    assert "balanced accuracy" in history, "the gate has scored both on the test tiles"
    assert "nothing was scored" not in history
    (decided,) = client.search_runs(["0"], "tags.`histo.decided_version` = '2'")
    decision = json.loads(mlflow.artifacts.load_text(f"runs:/{decided.info.run_id}/decision.json"))
    assert (decision["version"], decision["incumbent"], decision["evidence"]["n_tiles"]) == ("2", "1", 90)

    tiles = np.load("test.npz")["data"]
    expected = mlflow.pyfunc.load_model("models:/histo-b3/2").predict(tiles)
    elsewhere = probabilities_elsewhere(work, "2", "test.npz")
    np.testing.assert_allclose(elsewhere, expected.filter(like="prob_"), atol=1e-6)

    for form in ("torchscript", "onnx", "openvino"):
        # After an epoch from random weights logits are large, and rounding in another order shows.
        done = histo_here("export", "models:/histo-b3/2", "--to", form, "--data", "test.npz", "--tolerance", "0.001")
        assert done.returncode == 0, done.stderr
        facts = json.loads((work / f"exported-{form}" / "export.json").read_text())
        assert facts["labels_equal"] == 64
    done = histo_here("evaluate", "--model", "models:/histo-b3/2", "--data", "test.npz")
    assert done.returncode == 0, done.stderr

    again = histo_here("train", "--data", "tiles.npz", "--weights", "models:/histo-b3/2", "--epochs", "1")
    assert again.returncode == 2
    assert f"weights=models:/histo-b3/2 are those of a {name}; give backbone={name} too" in again.stderr
    return expected


def test_a_run_goes_on_with_its_own_backbone_only(work: Path, tiny_npz: Path, small_network: None, histo_here: Histo) -> None:
    learn = ("--data", tiny_npz.name, "--weights", "none", "--epochs", "1", "--batch-size", "9", "--register", "false")
    assert histo_here("train", *learn, "--backbone", "timm:resnet10t").returncode == 0
    client = MlflowClient()
    (run,) = client.search_runs(["0"])
    client.update_run(run.info.run_id, "FAILED")
    client.set_tag(run.info.run_id, "histo.ended", "FAILED")
    other = histo_here("train", "--resume", run.info.run_id, "--backbone", "timm:convnext_atto")
    assert other.returncode == 2
    assert "backbone was timm:resnet10t, now timm:convnext_atto" in other.stderr
    again = histo_here("train", "--resume", run.info.run_id)
    assert again.returncode == 0, again.stderr
    assert "1 epoch(s) are done" in again.stdout
