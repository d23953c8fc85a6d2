"""From training to a warning: a version keeps what its tiles are compared with, and `predict` says when they are others."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

import histo_mlflow
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer
from histo_mlflow.models.training_summary import SUMMARY_FILE
from histo_mlflow.pipeline.drift import Watch, compare_with_training, see
from histo_mlflow.pipeline.inputs import load_model
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.store import open_store
from tests.conftest import SIZE_PX, Histo, save_npz

pytestmark = pytest.mark.usefixtures("small_network")

MODEL = "models:/histo-b3/1"
COMPUTE = Compute(torch.device("cpu"), is_bf16=False)


def _noise(n_tiles: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n_tiles, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)


def _train(work: Path, job: str, **options: object) -> TileSet:
    tiles = draw_demo(n_tiles=270, tile_size_px=SIZE_PX, seed=1)
    save_npz(work / "own.npz", tiles)
    getattr(histo_mlflow, job)(data=str(work / "own.npz"), epochs=2, weights="none", **options)
    return tiles


def _folder() -> Path:
    return Path(mlflow.artifacts.download_artifacts(MODEL))


def test_predict_warns_of_tiles_of_another_kind_and_not_of_its_own(
    work: Path, histo_here: Histo, monkeypatch: pytest.MonkeyPatch
) -> None:
    _train(work, "train")
    assert 1_000 < (_folder() / SUMMARY_FILE).stat().st_size < 300_000
    save_npz(work / "others.npz", draw_demo(n_tiles=90, tile_size_px=SIZE_PX, seed=7))
    np.savez(work / "noise.npz", data=_noise(60))
    done = histo_here("predict", "--model", MODEL, "--data", "others.npz")
    assert done.returncode == 0, done.stderr
    assert "drift: nothing unusual about these 90 tiles (p " in done.stdout
    store = open_store()
    begun = store.client.create_run(store.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", begun)
    done = histo_here("predict", "--model", MODEL, "--data", "noise.npz")
    assert done.returncode == 0, "it is a warning"
    assert "Warning: these 60 tiles are unlike anything this model was tried on (p " in done.stderr
    metrics = store.client.get_run(begun).data.metrics
    assert metrics["drift/p_value"] < 0.001
    assert metrics["drift/n_tiles"] == 60
    assert metrics["drift/distance"] == metrics["drift/strangeness"] != 0


def test_the_features_come_of_the_pass_that_makes_the_predictions(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = _train(work, "train")
    model = load_model(open_store(), MODEL, torch.device("cpu"))
    images = np.array(tiles.images[:50])
    plain = infer(model.folded, images, compute=COMPUTE, description=None)
    watch = Watch(model)
    found = np.concatenate([watch.infer(images[rows], compute=COMPUTE) for rows in (slice(0, 30), slice(30, 50))])
    np.testing.assert_allclose(found, plain, atol=1e-6)
    seen = see(model, images, COMPUTE)
    at_once = compare_with_training(model, seen.logits, seen.features).drift
    in_parts = watch.compared().drift
    assert at_once is not None
    assert in_parts is not None
    assert in_parts.p_value == pytest.approx(at_once.p_value)
    alone = compare_with_training(model, seen.logits).drift
    assert alone is not None
    assert list(alone.shifts) == ["confidence"]
    assert compare_with_training(model, seen.logits[:7]).objection == (
        "7 tiles are too few to be compared with what the model was tried on; 20 are needed"
    )


def test_a_runtime_that_gives_only_logits_is_judged_by_them(work: Path, histo_here: Histo) -> None:
    _train(work, "train")
    np.savez(work / "noise.npz", data=_noise(60))
    done = histo_here("predict", "--model", MODEL, "--data", "noise.npz", "--runtime", "onnx")
    assert done.returncode == 0, done.stderr
    assert "confidence " in done.stdout + done.stderr
    assert "alone, as this runtime gives no features" in done.stdout + done.stderr


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_cross_validation_knows_the_patients_of_all_folds(work: Path, trainable: str) -> None:
    groups = np.array([f"P{k % 30:02d}" for k in range(270)])
    tiles = draw_demo(n_tiles=270, tile_size_px=SIZE_PX, seed=1)
    np.savez(work / "grouped.npz", data=tiles.images, labels=tiles.labels, groups=groups)
    histo_mlflow.cv(data=str(work / "grouped.npz"), epochs=1, folds=3, weights="none", trainable=trainable)
    summary = load_model(open_store(), MODEL, torch.device("cpu")).summary
    assert summary is not None
    assert summary.is_grouped
    assert len(summary.counts) == 30
    assert summary.counts.sum() == 270, "each tile by the fold that has not learnt from it"


def test_a_version_that_keeps_no_summary_says_so_once_and_predicts(work: Path, histo_here: Histo) -> None:
    run_id = histo_mlflow.train(data=str(_saved(work)), epochs=1, weights="none").run_id
    checkpoint = f"runs:/{run_id}/checkpoints/best.safetensors"
    done = histo_here("predict", "--model", checkpoint, "--data", "own.npz")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"drift: not judged: {checkpoint} keeps no summary of its training") == 1
    assert len(pd.read_csv("predictions.csv")) == 90


def _saved(work: Path) -> Path:
    return save_npz(work / "own.npz", draw_demo(n_tiles=90, tile_size_px=SIZE_PX, seed=1))


def test_a_summary_that_was_changed_is_refused(work: Path, histo_here: Histo) -> None:
    histo_mlflow.train(data=str(_saved(work)), epochs=1, weights="none")
    folder = _folder()
    (folder / SUMMARY_FILE).write_bytes((folder / SUMMARY_FILE).read_bytes()[:-8] + b"12345678")
    done = histo_here("predict", "--model", str(folder), "--data", "own.npz")
    assert done.returncode == 2
    assert "can't be used (it is not the file that was logged); fetch the model again" in done.stderr
