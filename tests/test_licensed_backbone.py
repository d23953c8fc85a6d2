"""A backbone that may not be passed on: a version holds the head and a reference, and loads where the user has the backbone."""

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from timm.models import save_for_hf

from histo_mlflow.tiles.demo import draw_demo
from tests.conftest import SIZE_PX, Histo, save_npz
from tests.elsewhere import probabilities_elsewhere
from tests.models.test_backbones import write_graph

LICENCE = "for-research-in-this-house"


def _write_graph(work: Path) -> str:
    return str(write_graph(work / "encoder.pt2", licence=LICENCE, may_be_passed_on=False))


def _write_folder(work: Path) -> str:
    torch.manual_seed(0)
    save_for_hf(timm.create_model("resnet10t", num_classes=0), work / "encoder", model_config={}, safe_serialization=True)
    (work / "encoder" / "README.md").write_text(f"---\nlicense: {LICENCE}\n---\n")
    return f"hub:{work / 'encoder'}"


@pytest.mark.parametrize(
    ("write", "trainable"),
    [
        (_write_graph, "all"),
        pytest.param(_write_folder, "all", marks=pytest.mark.slow),
        pytest.param(_write_graph, "head", marks=pytest.mark.slow),
        pytest.param(_write_folder, "head", marks=pytest.mark.slow),
    ],
)
def test_a_version_refers_to_a_backbone_that_it_may_not_hold(
    write: object, trainable: str, work: Path, histo_here: Histo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HISTO_BACKBONES_DIR", str(work / "mine"))
    name = write(work)  # type: ignore[operator]
    tiles = draw_demo(n_tiles=54, tile_size_px=SIZE_PX)
    save_npz(work / "tiles.npz", tiles)
    learn = ("--backbone", name, "--trainable", trainable, "--epochs", "1", "--batch-size", "9")
    done = histo_here("train", "--data", "tiles.npz", *learn)
    assert done.returncode == 0, done.stderr
    assert f"({LICENCE}) keeps it here: {work / 'mine'}" in done.stdout

    local = Path(mlflow.artifacts.download_artifacts("models:/histo-b3/1"))
    facts = json.loads((local / "data" / "model.json").read_text())
    (kept,) = (work / "mine").iterdir()
    reference = facts["kept_backbone"]
    assert (reference["file"], reference["name"], reference["licence"]) == (kept.name, name, LICENCE)
    assert len(reference["sha256"]) == len(facts["weights_origin_sha256"]) == 64
    assert torch.export.load(local / "data" / "model.pt2").state_dict.keys() == {"linear.weight", "linear.bias"}
    card = MlflowClient().get_model_version("histo-b3", "1").description
    assert LICENCE.replace("-", "\\-") in card or LICENCE in card
    assert "The backbone is not in this model" in card

    expected = mlflow.pyfunc.load_model("models:/histo-b3/1").predict(tiles.images).filter(like="prob_")
    assert expected.to_numpy().std() > 0
    (run,) = MlflowClient().search_runs(["0"])
    _same_as_checkpoint(histo_here, run.info.run_id, expected)
    np.testing.assert_allclose(probabilities_elsewhere(work, "1", "tiles.npz"), expected, atol=1e-6)

    for form in ("torchscript", "onnx"):
        done = histo_here("export", "models:/histo-b3/1", "--to", form, "--data", "tiles.npz")
        assert done.returncode == 2
        assert f"its licence ({LICENCE}) does not let it be passed on" in done.stderr
        assert not (work / f"exported-{form}").exists()
    assert histo_here("evaluate", "--model", "models:/histo-b3/1", "--data", "tiles.npz").returncode == 0
    _missing_or_changed(work, kept, histo_here)
    again = histo_here("train", "--data", "tiles.npz", "--weights", "models:/histo-b3/1", *learn)
    assert again.returncode == 0, again.stderr
    second = Path(mlflow.artifacts.download_artifacts("models:/histo-b3/2"))
    assert json.loads((second / "data" / "model.json").read_text())["kept_backbone"]["licence"] == LICENCE


def _same_as_checkpoint(histo_here: Histo, run_id: str, expected: pd.DataFrame) -> None:
    done = histo_here("predict", "--model", f"runs:/{run_id}/checkpoints/best.safetensors", "--data", "tiles.npz")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(pd.read_csv("predictions.csv").filter(like="prob_"), expected, atol=1e-4)


def _missing_or_changed(work: Path, kept: Path, histo_here: Histo) -> None:
    away = work / "away.pt2"
    kept.rename(away)
    said = rf"{LICENCE}\), which this model may not hold, is not at .*{kept.name}; copy .* HISTO_BACKBONES_DIR"
    with pytest.raises(MlflowException, match=said):
        mlflow.pyfunc.load_model("models:/histo-b3/1")
    done = histo_here("predict", "--model", "models:/histo-b3/1", "--data", "tiles.npz")
    assert done.returncode == 2
    assert "which this model may not hold, is not at" in done.stderr
    kept.write_bytes(away.read_bytes()[:-1] + b"x")
    with pytest.raises(MlflowException, match="its SHA-256 is"):
        mlflow.pyfunc.load_model("models:/histo-b3/1")
    shutil.copy(away, kept)
    mlflow.pyfunc.load_model("models:/histo-b3/1")
