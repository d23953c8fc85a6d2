"""Every job is a function in Python too: options are keywords, what was found comes back, errors are exceptions."""

import inspect
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import mlflow
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from PIL import Image

import histo_mlflow
from histo_mlflow.errors import OptionError, TileFormatError
from histo_mlflow.jobs import find_jobs
from histo_mlflow.jobs.download import DownloadResult
from tests.colour_reader import register
from tests.conftest import PROJECT


def test_every_job_is_a_function_with_its_options_and_their_help() -> None:
    for job in find_jobs().values():
        name = job.function_name
        function = getattr(histo_mlflow, name)
        assert name in dir(histo_mlflow)
        assert function.__name__ == name
        assert job.help in function.__doc__
    parameters = inspect.signature(histo_mlflow.train).parameters
    assert parameters["epochs"].default == 20
    assert "epochs: How often every training tile is seen. (at least 1; default 20)" in histo_mlflow.train.__doc__
    assert "oof: Evaluation of all tiles" in histo_mlflow.cv.__doc__, "what comes back is said too"
    compare = inspect.signature(histo_mlflow.compare)
    assert list(compare.parameters)[:3] == ["model_a", "model_b", "data"]
    assert compare.bind("a", "b").arguments == {"model_a": "a", "model_b": "b"}
    assert compare.parameters["precision"].annotation == Literal["auto", "fp32", "bf16"]
    assert inspect.signature(histo_mlflow.cv).parameters["folds"].annotation == int | Literal["site", "patient"]
    assert compare.return_annotation.__name__ == "CompareResult"


def test_all_that_is_offered_is_named_and_nothing_heavy_is_imported_for_it() -> None:
    code = "import sys\nfrom histo_mlflow import *\nassert 'torch' not in sys.modules\nassert load and train and tune"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {*histo_mlflow.__all__} == {*(job.function_name for job in find_jobs().values()), "load"} <= {*dir(histo_mlflow)}
    assert (PROJECT / "histo_mlflow" / "py.typed").exists()


def test_what_is_no_job_is_no_attribute() -> None:
    assert not hasattr(histo_mlflow, "trane")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"epoch": 5}, "train has no option epoch; known are data test_data"),
        ({"epochs": 0}, "epochs=0: must be at least 1"),
        ({"epochs": "five"}, "epochs='five' must be int"),
    ],
)
def test_a_wrong_option_is_an_exception_of_one_line(options: dict[str, object], reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        histo_mlflow.train(**options)


@pytest.mark.usefixtures("small_network")
def test_train_and_judge_return_what_they_found(work: Path, tiny_npz: Path) -> None:
    trained = histo_mlflow.train(data=tiny_npz, epochs=1, weights="none", batch_size=9, val_fraction=0.34)
    run = mlflow.get_run(trained.run_id)
    assert run.data.metrics["val/balanced_accuracy"] == trained.val.overall["balanced_accuracy"].value
    assert (trained.version, trained.best_epoch, trained.test) == ("1", 1, None)
    assert mlflow.models.get_model_info(trained.model_uri).run_id == trained.run_id

    judged = histo_mlflow.evaluate(model=trained.run_id, data=tiny_npz, robustness=0)
    assert judged.looks == 1
    assert judged.test.overall["accuracy"].value == mlflow.get_run(judged.run_id).data.metrics["test/accuracy"]
    compared = histo_mlflow.compare(trained.run_id, trained.run_id, data=tiny_npz)
    assert compared.comparison.differences["balanced_accuracy"].value == 0

    written = histo_mlflow.predict(model=trained.run_id, data=tiny_npz, output="said.csv")
    assert Path(written) == written.path == work / "said.csv"
    assert len(written.path.read_text().splitlines()) == 55
    said_so = pd.read_csv(written)["label"].value_counts().to_dict()
    assert {name: n for name, n in written.counts.items() if n} == said_so
    assert _cells(written)["path"] == ["said.csv", ""]
    assert _cells(written)["counts"][0].startswith(f"ADI: {written.counts['ADI']}, BACK: ")
    exported = histo_mlflow.export(trained.run_id, to="torchscript", data=tiny_npz)
    assert (exported.path / "export.json").exists()
    assert _cells(exported)["agreement"][0] == exported.agreement
    drawn = histo_mlflow.report(trained.run_id)
    assert drawn.drawn == {trained.run_id: ["curves.png", "evaluation/val"]}
    assert _cells(drawn)["page"] == _cells(trained)["page"]
    both = histo_mlflow.report(judged.run_id[:12], trained.run_id[:12])
    assert both.page == work / "runs.html"
    assert set(both.drawn) == {trained.run_id, judged.run_id}
    assert _cells(both)["page"] == ["runs.html", ""]

    shown = _cells(trained)
    estimate = trained.val.overall["balanced_accuracy"]
    assert shown["validation: Balanced accuracy"][0] == f"{estimate.value:.3f}"
    assert (shown["run"][0], shown["version"][0]) == (trained.run_id, "1")
    page = shown["page"][0]
    assert (work / page).read_text().startswith("<!doctype html>")
    assert f'href="{page}"' in trained._repr_html_(), "relative, as a notebook's server hands it out"
    assert _cells(judged)["test: Accuracy (multi-class)"][0] == f"{judged.test.overall['accuracy'].value:.3f}"
    assert _cells(trained.val)["TUM"][0] == "2 tiles"
    assert _cells(compared)["Balanced accuracy"][1].startswith("B minus A: +0.0000")

    model = histo_mlflow.load(trained.run_id)
    said, by_command = model(tiny_npz), pd.read_csv(written)
    assert said["label"].tolist() == by_command["label"].tolist()
    np.testing.assert_allclose(said.filter(like="prob_"), by_command.filter(like="prob_"), rtol=1e-6)
    tiles = np.load(tiny_npz)["data"]
    assert model(tiles[3])["label"].tolist() == said["label"].tolist()[3:4], "one tile alone is one row"
    pd.testing.assert_frame_equal(model(tiles), said)
    with pytest.raises(TileFormatError, match="float64 values; tiles must be uint8"):
        model(tiles / 255)
    with pytest.raises(OptionError, match="give an array of uint8, a path, or a list of paths"):
        model([tiles[0]])
    files = [work / "a.png", work / "broken.png", work / "b.png"]
    for file, tile in zip(files, tiles[[5, 6, 7]], strict=True):
        Image.fromarray(tile).save(file)
    files[1].write_bytes(b"no image")
    of_files = model(files)
    assert of_files.index.tolist() == [str(file) for file in files]
    assert of_files["label"].iloc[[0, 2]].tolist() == said["label"].iloc[[5, 7]].tolist()
    assert of_files.iloc[1].isna().all(), "a row without values"
    assert model.classes == ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
    assert _cells(model)["takes"] == ["tiles of 32 px", "scale not stated"]


class _Cells(HTMLParser):
    """Reads the rows of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - as the parser calls it
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and data.strip():
            self.rows[-1][-1] += data.strip()


def _rows(result: Any) -> list[list[str]]:
    parser = _Cells()
    parser.feed(result._repr_html_())
    return parser.rows


def _cells(result: Any) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in _rows(result)}


def test_decisions_are_shown_with_their_reasons(work: Path) -> None:
    first, second = register(0.0), register(1.0)
    forced = histo_mlflow.promote(version=second, force=True, reason="<b>red</b> slides")
    assert (forced.what, forced.version, forced.incumbent) == ("forced", second, first)
    assert _cells(forced)["decision"] == ["forced", ""]
    assert _cells(forced)["reason"] == ["<b>red</b> slides", ""]
    assert _cells(forced)["run"][0] == forced.run_id
    back = histo_mlflow.rollback(reason="too red")
    assert _cells(back)["in Production before"] == [second, ""]
    told = histo_mlflow.history()
    assert (told.production, [each.what for each in told.decisions]) == (first, ["first", "forced", "rolled back"])
    shown = [row for row in _rows(told) if row[0].startswith("version ")]
    assert [row[0] for row in shown] == [f"version {first}", f"version {second}", f"version {first}"]
    assert shown[1][1].startswith(f"decision forced, in Production before {first}, reason <b>red</b> slides, user ")


def test_what_a_result_shows_is_escaped(tmp_path: Path) -> None:
    found = DownloadResult(tmp_path, tmp_path / "<script>alert(1)</script>.npz", "<b>", "&amp;")
    html = found._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert len(html) < 5000
    assert _cells(found)["licence"] == ["<b>", ""]


@pytest.mark.slow
def test_the_example_of_the_readme_runs_in_a_notebook(work: Path, tiny_npz: Path) -> None:
    text = (PROJECT / "README.md").read_text().partition("## From Python")[2]
    example = text.partition("```python\n")[2].partition("```")[0]
    assert "histo.train(" in example
    example = example.replace("/path/to/tiles.npz", str(tiny_npz)).replace("/path/to/test.npz", str(tiny_npz))
    cells = [nbformat.v4.new_code_cell(example), nbformat.v4.new_code_cell("print(trained.version)\nhisto.train?")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(work)}}).execute()
    said = "".join(output.get("text", "") for output in notebook.cells[1].outputs)
    assert said.startswith("1\n")
    assert mlflow.search_runs(output_format="list")
