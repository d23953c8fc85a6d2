import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from histo_mlflow.evaluation.curves import draw_curves, draw_fold_curves
from histo_mlflow.evaluation.details import Provenance
from histo_mlflow.evaluation.metrics import Predictions, evaluate_predictions
from histo_mlflow.evaluation.page import png_of
from histo_mlflow.evaluation.report import write_evaluation

CLASSES = ("ADI", "TUM", "<b>")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)
    probabilities = rng.dirichlet(np.ones(3), 40)
    about = Provenance("test", "tiles.npz", "f" * 64, "models:/m/1", "epoch 2 of 3, by validation loss", 4, is_synthetic=True)
    write_evaluation(tmp_path / "out", evaluate_predictions(Predictions(labels, probabilities, CLASSES)), np.arange(40), about)
    return tmp_path / "out"


def test_every_file_of_the_contract_is_there(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "confusion_matrix.png", "confusion_matrix.csv", "per_class.csv", "predictions.npz", "summary.json", "report.html",
        "roc_pr.png", "calibration.png", "risk_coverage.png", "errors.csv",
    }  # fmt: skip


def test_tables_and_arrays(folder: Path) -> None:
    table = pd.read_csv(folder / "per_class.csv")
    figures = ["sensitivity", "specificity", "ppv", "npv", "f1", "auroc", "auprc", "one_vs_rest_accuracy"]
    assert list(table.columns) == ["class", "n", *[f"{name}{end}" for name in figures for end in ("", "_low", "_high")]]
    assert table["class"].tolist() == list(CLASSES)
    assert np.isnan(table["sensitivity"][2]), "a class without tiles has no sensitivity"
    confusion = pd.read_csv(folder / "confusion_matrix.csv", index_col="true")
    assert confusion.to_numpy().sum() == 40
    with np.load(folder / "predictions.npz") as arrays:
        assert arrays["probabilities"].shape == (40, 3)
        assert arrays["predicted"].tolist() == arrays["probabilities"].argmax(axis=1).tolist()
        assert arrays["indices"].tolist() == list(range(40))
        assert arrays["labels"].shape == (40,)


def test_summary(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["n"], summary["looks"]) == (40, 4)
    assert summary["selected"] == "epoch 2 of 3, by validation loss"
    for name in ("balanced_accuracy", "log_loss", "accuracy"):
        assert set(summary[name]) == {"value", "low", "high"}


def test_page_is_one_file_that_says_what_it_must(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert not re.findall(r"<script|(?:src|href)=[\"'](?!data:)", page), "nothing may be fetched"
    for words in ("Synthetic tiles", "4, this one included", "epoch 2 of 3", "not defined", "f" * 64, "Not for diagnosis"):
        assert words in page
    assert "<b>" not in page, "names from the data must be escaped"


def test_curves_are_pictures() -> None:
    history = {f"{split}/{name}": [1.0, 0.5] for split in ("train", "val", "test") for name in ("loss", "accuracy")}
    for picture in (
        draw_curves(history, aug_cutoff=1, best_epoch=2, title="t"),
        draw_fold_curves([history, history], aug_cutoff=0, title="t"),
    ):
        assert Image.open(io.BytesIO(png_of(picture))).size[0] > 1000
        assert {line.get_label() for axes in picture.axes for line in axes.lines} >= {"val"} or "val, mean of folds" in {
            line.get_label() for line in picture.axes[0].lines
        }
