"""What a cross-validation says of its choices: the figures beside those of the fold that it hands on."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

import histo_mlflow
from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.kept_numbers import read_numbers
from histo_mlflow.tiles.demo import draw_demo
from tests.conftest import SIZE_PX, save_npz

pytestmark = pytest.mark.usefixtures("small_network")
_FIGURES = ("loss", "accuracy", "balanced_accuracy")


def test_each_choice_is_named_and_corrected(work: Path) -> None:
    tiles = save_npz(work / "tiles.npz", draw_demo(n_tiles=108, tile_size_px=SIZE_PX))
    result = histo_mlflow.cv(
        data=str(tiles), weights="none", folds=3, epochs=10, aug_cutoff=0, batch_size=9, learning_rate=0.01,
        label_smoothing=0.5, calibration="temperature",
    )  # fmt: skip
    client, folds = MlflowClient(), result.folds
    histories = [{name: [m.value for m in client.get_metric_history(run_id, f"val/{name}")] for name in _FIGURES}
                 for run_id in folds["run_id"]]  # fmt: skip

    # Nested: each fold at the epoch with the lowest mean loss of the others.
    for k, history in enumerate(histories):
        others = np.mean([each["loss"] for j, each in enumerate(histories) if j != k], axis=0)
        for name in _FIGURES:
            assert folds[f"nested_{name}"][k] == pytest.approx(history[name][int(others.argmin())])
    metrics = client.get_run(result.run_id).data.metrics
    for name in _FIGURES:
        assert metrics[f"cv/{name}/nested"] == pytest.approx(folds[f"nested_{name}"].mean())

    # Out of fold: no tile is scaled by a temperature that its own label has helped to fit.
    kept = {run_id: _findings(run_id, "val") for run_id in folds["run_id"]}
    temperatures = [findings.details.calibration.temperature for findings in kept.values()]
    assert any(temperature != 1 for temperature in temperatures), "else this test says nothing"
    pooled = _findings(result.run_id, "oof")
    for findings in kept.values():
        own, crossed = findings.predictions, pooled.predictions.probabilities[findings.indices]
        assert (crossed.argmax(axis=1) == own.predicted).all(), "no label changes"
        if findings.details.calibration.temperature != 1:
            assert np.abs(crossed - own.probabilities).max() > 1e-4
    beside = Path(mlflow.artifacts.download_artifacts(f"runs:/{result.run_id}/folds.html")).read_text()
    assert beside.index("All folds together: ") < beside.index("fold 1")
    assert f"({result.run_id[:8]})" in beside
    page = Path(mlflow.artifacts.download_artifacts(f"runs:/{result.run_id}/evaluation/oof/report.html")).read_text()
    assert "the temperature of each tile was fitted on the others of its fold" in page
    assert "No temperature was fitted" not in page
    assert "nested balanced accuracy" in page

    card = client.get_model_version("histo-b3", result.version).description
    assert f"fold {result.best_fold} of 3, by validation loss; its epoch" in card
    assert "all 108 tiles, out of fold" in card
    assert f"loss {folds['nested_loss'].mean():.4f}" in card


def _findings(run_id: str, split: str) -> Findings:
    return read_numbers(Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/evaluation/{split}")))
