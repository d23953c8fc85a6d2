import base64
import html
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from histo_mlflow.errors import TileFormatError
from histo_mlflow.evaluation.caveats import learnt_from
from histo_mlflow.evaluation.curves import draw_curves, draw_fold_curves
from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.kept_numbers import read_numbers, write_numbers
from histo_mlflow.evaluation.page import png_of
from histo_mlflow.evaluation.report_sections import draw_report
from histo_mlflow.evaluation.verdict import as_json, verdict_of
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


def test_errors_are_found_again_by_file_and_group(tmp_path: Path) -> None:
    names = np.array([f"ADI/tile {k}.png" for k in range(40)])
    found = replace(find_everything(), given_names=names)
    write_numbers(tmp_path, found)
    errors = pd.read_csv(tmp_path / "errors.csv")
    assert [*errors.columns] == ["index", "true", "predicted", "probability", "loss", "name", "group"]
    assert errors["name"].tolist() == [names[k] for k in errors["index"]]
    assert errors["group"].tolist() == [f"p{k // 10 + 1}" for k in errors["index"]]
    with np.load(tmp_path / "predictions.npz") as arrays:
        assert (arrays["names"] == names).all()
    assert (read_numbers(tmp_path).names == names).all()
    write_numbers(tmp_path, find())
    assert read_numbers(tmp_path).given_names is None, "of an npz the position is the name"
    assert read_numbers(tmp_path).names.tolist() == [str(k) for k in range(40)]


def test_the_verdict_and_what_limits_it_stand_in_page_and_summary(tmp_path: Path) -> None:
    found = find_everything()
    found = replace(found, details=replace(found.details, caveats=(learnt_from("models:/m/1"),)))
    write_numbers(tmp_path, found)
    draw_report(tmp_path, read_numbers(tmp_path))
    summary, page = json.loads((tmp_path / "summary.json").read_text()), (tmp_path / "report.html").read_text()
    assert summary["verdict"] == as_json(verdict_of(found))
    assert summary["verdict"]["sentence"] in html.unescape(page)
    names = [caveat["name"] for caveat in summary["caveats"]]
    assert names == ["learnt_from_these_tiles", "synthetic", "looked_at_before", "no_interval", "classes_missing"]
    assert all(caveat["words"] in html.unescape(page) for caveat in summary["caveats"])


def test_a_page_has_contents_that_lead_to_its_sections(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    links = re.findall(r'<a href="#(\w+)">', page)
    assert len(links) >= 10
    assert set(links) < set(re.findall(r'<section id="(\w+)"', page))
    assert page.count('class="details"') == 1, "essentials first, then the rest on new printed pages"


def test_figures_of_a_page_are_svg_whose_texts_are_texts_of_ten_pixels_or_more(folder: Path) -> None:
    pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', (folder / "report.html").read_text())
    assert len(pictures) >= 5
    for svg in (base64.b64decode(each).decode() for each in pictures):
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px; font-family: system-ui", svg)]
        assert sizes
        assert min(sizes) > 10
        assert "sensitivity" in svg or "share" in svg, "words, not outlines of letters"


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
