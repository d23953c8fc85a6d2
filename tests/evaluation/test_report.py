import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from histo_mlflow.errors import TileFormatError
from histo_mlflow.evaluation.curves import draw_curves, draw_fold_curves
from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.kept_numbers import read_numbers, write_numbers
from histo_mlflow.evaluation.page import png_of
from histo_mlflow.evaluation.report_sections import draw_report
from tests.evaluation.found import CLASSES, find, find_everything


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_numbers(tmp_path / "out", find())
    draw_report(tmp_path / "out", find())
    return tmp_path / "out"


@pytest.mark.parametrize("find", [find, find_everything])
def test_a_report_that_is_drawn_from_what_is_kept_is_the_same_to_the_last_byte(
    tmp_path: Path, find: Callable[[], Findings]
) -> None:
    found = find()
    write_numbers(tmp_path / "now", found)
    assert not list((tmp_path / "now").glob("*.png")), "numbers come before pictures"
    kept = read_numbers(tmp_path / "now")
    write_numbers(tmp_path / "later", kept)
    draw_report(tmp_path / "now", found)
    draw_report(tmp_path / "later", kept)
    for file in (tmp_path / "now").iterdir():
        assert file.suffix == ".npz" or file.read_bytes() == (tmp_path / "later" / file.name).read_bytes(), file.name


def test_what_a_version_with_fewer_metrics_has_kept_is_drawn(folder: Path) -> None:
    summary = folder / "summary.json"
    kept = json.loads(summary.read_text())
    del kept["cohens_kappa"]
    for row in kept["per_class"]:
        del row["figures"]["auprc"]
    summary.write_text(json.dumps(kept))
    draw_report(folder, read_numbers(folder))
    page = (folder / "report.html").read_text()
    assert '<th scope="col">AUROC</th></tr>' in page
    assert "kappa" not in page


def test_numbers_that_are_damaged_or_of_an_earlier_version_are_told_with_what_to_do(folder: Path) -> None:
    summary = folder / "summary.json"
    whole = summary.read_text()
    for text in ("{", "[]", json.dumps({"n": 3}), whole.replace('"per_class"', '"other"')):
        summary.write_text(text)
        with pytest.raises(TileFormatError, match="score the model again with histo evaluate"):
            read_numbers(folder)
    summary.write_text(whole)
    (folder / "predictions.npz").write_bytes(b"PK")
    with pytest.raises(TileFormatError, match=r"out: summary\.json and predictions\.npz"):
        read_numbers(folder)


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
    assert not re.findall(r"<script|(?:src|href)=[\"'](?!data:|#)", page), "nothing may be fetched"
    for words in ("synthetic drawings", "4, this one included", "epoch 2 of 3", "not defined", "f" * 64, "Not for diagnosis"):
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
