"""The model comes before pictures, and `histo report` makes these later from what a run keeps."""

import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from mlflow import MlflowClient

from histo_mlflow.evaluation.findings import About, Details
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.learning.options import Recipe
from histo_mlflow.options import build
from histo_mlflow.pipeline.contents import log_config
from histo_mlflow.pipeline.draw import curves_of
from histo_mlflow.pipeline.folds import Folds
from histo_mlflow.pipeline.record import RecordedSplit
from histo_mlflow.pipeline.report import record_findings
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tiles.options import FoldOptions
from histo_mlflow.tiles.splits import Split, cut_folds
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.decisions import read_history
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store, open_store
from tests.colour_reader import CLASSES, register
from tests.conftest import PYTHONPATH, SIZE_PX, Histo, save_npz

NUMBERS = {"predictions.npz", "summary.json", "per_class.csv", "confusion_matrix.csv", "errors.csv"}
PICTURES = {"confusion_matrix.png", "roc_pr.png", "calibration.png", "risk_coverage.png", "report.html"}


def _fail(*_: object, **__: object) -> None:
    raise ValueError("nothing can be drawn")


def _kept(run_id: str, folder: str | None = None) -> dict[str, bytes]:
    """Return the files of a run by name."""
    client = MlflowClient()
    found = [item.path for item in client.list_artifacts(run_id, folder) if not item.is_dir]
    return {Path(path).name: Path(client.download_artifacts(run_id, path)).read_bytes() for path in found}


@pytest.fixture
def scored(store: Store, tiny_npz: Path, tiny_tiles: TileSet) -> str:
    """A run that has learnt for two epochs and whose pictures were not drawn."""
    rng = np.random.default_rng(0)
    rows = np.arange(9, 36)
    said = Predictions(tiny_tiles.labels[rows], rng.dirichlet(np.ones(9), 27), tiny_tiles.classes)
    with open_run(store, "train", tags={"histo.entry_point": "train", "histo.report": "failed: curves.png"}) as run:
        log_config(run, {"data": tiny_npz.name, "epochs": 2, "test_data": "none"})
        for epoch in (1, 2):
            run.log_metrics(
                {f"{part}/{name}": 1 / epoch for part in ("train", "val") for name in ("loss", "accuracy")}, step=epoch
            )
        part = tiny_tiles.part("val", rows)
        about = About.of(part, "run", selected="epoch 2", looks=0)
        record_findings(run, said, part, about, Details())
    return run.id


def test_a_run_is_drawn_from_what_it_keeps(scored: str, histo_here: Histo) -> None:
    numbers = _kept(scored, "evaluation/val")
    assert set(numbers) == NUMBERS
    done = histo_here("report", scored)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"run {scored}: curves.png, evaluation/val"
    after = _kept(scored, "evaluation/val")
    assert set(after) == NUMBERS | PICTURES | {"gallery.png"}
    assert {name: after[name] for name in NUMBERS} == numbers, "no number changes"
    assert b"data:image/png;base64" in after["report.html"]
    assert "curves.png" in _kept(scored)
    found = MlflowClient().get_run(scored)
    assert (found.info.status, found.data.tags["histo.report"]) == ("FINISHED", "made")


def test_tiles_that_are_gone_or_others_are_left_out_with_a_line(scored: str, tiny_npz: Path, histo_here: Histo) -> None:
    save_npz(tiny_npz, draw_demo(n_tiles=54, tile_size_px=SIZE_PX, seed=5))
    others = histo_here("report", scored)
    tiny_npz.unlink()
    gone = histo_here("report", scored)
    for done, words in ((others, "holds other tiles"), (gone, "does not exist")):
        assert done.returncode == 0, done.stderr
        [line] = [line for line in done.stdout.splitlines() if line.startswith("no tiles are shown")]
        assert words in line
    page = _kept(scored, "evaluation/val")["report.html"]
    assert b"The tiles were not at hand when this page was drawn" in page


def test_what_can_not_be_drawn_again_is_one_line(
    scored: str, store: Store, histo_here: Histo, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_run(store, "empty") as empty:
        running = histo_here("report", empty.id)
    for done, words in (
        (running, "is still going on"),
        (histo_here("report", empty.id), f"run {empty.id} keeps nothing that could be drawn"),
        (histo_here("report", "0" * 32), "there is no run with this id"),
        (histo_here("report"), "give the id of a run"),
    ):
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    monkeypatch.setattr("histo_mlflow.evaluation.report_sections.plots.draw_confusion", _fail)
    done = histo_here("report", scored)
    assert done.returncode == 1
    assert "the report of evaluation/val could not be made (ValueError: nothing can be drawn)" in done.stderr


def test_a_picture_that_fails_leaves_no_version_without_its_decision(
    work: Path, histo_here: Histo, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, better = register(3.0), register(0.0)
    labels = np.arange(90) % 3
    colours = np.full((90, 1, 1, 3), 100) + 30 * np.eye(3)[labels][:, None, None]
    images = np.broadcast_to(colours.astype(np.uint8), (90, 32, 32, 3))
    np.savez(work / "labelled.npz", data=images, labels=labels, classes=np.array(CLASSES))
    with monkeypatch.context() as patch:
        patch.setattr("histo_mlflow.evaluation.comparison_sections.draw_differences", _fail)
        done = histo_here("promote", "--version", better, "--test-data", "labelled.npz", "--margin", "1", "--loss-margin", "9")
    assert done.returncode == 0, done.stderr
    decision = read_history(open_store(), "histo-b3")[-1]
    assert (decision.what, decision.version, decision.incumbent) == ("promoted", better, first)
    assert "could not be made (ValueError: nothing can be drawn); all else is kept." in done.stderr
    assert f"Once that is corrected: histo report {decision.run}" in done.stderr
    numbers = _kept(str(decision.run), "comparison")
    assert set(numbers) == {"comparison.json", "disagreements.csv", "predictions.npz"}
    done = histo_here("report", str(decision.run))
    assert done.returncode == 0, done.stderr
    after = _kept(str(decision.run), "comparison")
    assert set(after) == {*numbers, "comparison.html", "differences.png"}
    assert {name: after[name] for name in numbers} == numbers


def test_runs_are_shown_side_by_side_on_one_page(scored: str, store: Store, tiny_tiles: TileSet, histo_here: Histo) -> None:
    rows = np.arange(9, 36)
    part = tiny_tiles.part("val", rows)
    with open_run(store, "other", tags={"histo.entry_point": "train"}) as other:
        said = Predictions(part.labels, 0.9 * np.eye(9)[part.labels] + 0.1 / 9, tiny_tiles.classes)
        record_findings(other, said, part, About.of(part, "run", selected="epoch 2", looks=0), Details())
    done = histo_here("report", scored[:12], "last", "--output", "both.html")
    assert done.returncode == 0, done.stderr
    page = Path("both.html").read_text()
    assert done.stdout.splitlines()[-1] == f"2 runs side by side: {Path('both.html').resolve()}"
    for words in (f"train ({scored[:8]})", f"other ({other.id[:8]})", "All were scored on the same tiles", "How they learnt"):
        assert words in page
    with open_run(store, "elsewhere val 0.123", tags={"histo.entry_point": "train"}) as elsewhere:
        for name, n, fingerprint in (("val", 9, "a" * 64), ("test", 18, "b" * 64)):
            tested = tiny_tiles.part(name, np.arange(n))
            said = Predictions(tested.labels, 0.9 * np.eye(9)[tested.labels] + 0.1 / 9, tiny_tiles.classes)
            about = replace(About.of(tested, "run", looks=1), fingerprint=fingerprint)
            record_findings(elsewhere, said, tested, about, Details())
    assert histo_here("report", other.id, elsewhere.id).returncode == 0
    page = Path("runs.html").read_text()
    assert f"elsewhere ({elsewhere.id[:8]})" in page, "without the figure of tiles that are not shown"
    assert re.findall(r'data-head="scored on">(\w+)<', page) == ["validation", "test"], "each on what tells most"
    with open_run(store, "empty") as empty:
        pass
    done = histo_here("report", scored, empty.id)
    assert done.returncode == 2
    assert f"run {empty.id} keeps no scored tiles" in done.stderr


def test_an_epoch_whose_loss_is_not_a_number_is_not_marked_as_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("histo_mlflow.pipeline.draw.draw_curves", lambda _, **drawn: drawn["best_epoch"])
    history = {"val/loss": [0.7, float("nan"), 0.5]}
    assert curves_of(history, build(Recipe, {}), "hold-out")(["loss"]) == 3


def test_a_baseline_that_some_fold_lacks_is_left_out_of_the_whole(tiny_tiles: TileSet) -> None:
    labels, n_classes = tiny_tiles.labels, len(tiny_tiles.classes)
    splits = cut_folds(tiny_tiles, FoldOptions(2), seed=0)

    def fold(split: Split, baselines: dict[str, float]) -> RecordedSplit:
        said = {}
        for name, value in baselines.items():
            of_tile = [value, *[(1 - value) / (n_classes - 1)] * (n_classes - 1)]
            said[name] = Predictions(split.val.labels, np.array([of_tile] * len(split.val)), tiny_tiles.classes)
        return cast("RecordedSplit", SimpleNamespace(split=split, baselines=said))

    folds = Folds(tiny_tiles, [fold(splits[0], {"mean RGB": 0.2, "histogram": 0.2}), fold(splits[1], {"mean RGB": 0.7})])
    pooled = folds.pool_baselines()
    assert list(pooled) == ["mean RGB"]
    assert (pooled["mean RGB"].labels == labels).all()
    for split, value in zip(splits, (0.2, 0.7), strict=True):
        assert (pooled["mean RGB"].probabilities[split.val.rows, 0] == value).all()
    assert Folds(tiny_tiles, [fold(splits[0], {}), fold(splits[1], {"mean RGB": 0.7})]).pool_baselines() == {}


_BROKEN = {
    "raises": "raise RuntimeError('no picture')",
    # Worse than any error: what kills the process while it draws.
    "dies": "os._exit(3)",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "how"), [("train", "raises"), ("train", "dies"), ("cv", "raises"), ("cv", "dies")]
)  # fmt: skip
def test_the_model_is_registered_and_decided_on_whatever_becomes_of_the_pictures(
    work: Path, tiny_npz: Path, histo: Histo, command: str, how: str
) -> None:
    """In a process whose matplotlib can draw and can't save; `histo report` in one that can."""
    (work / "broken").mkdir()
    (work / "broken" / "sitecustomize.py").write_text(
        f"import os\nimport matplotlib.figure\ndef savefig(*_, **__):\n    {_BROKEN[how]}\n"
        "matplotlib.figure.Figure.savefig = savefig\n"
    )
    folds = ["--folds", "2"] if command == "cv" else []
    done = histo(
        command, "--data", tiny_npz, "--weights", "none", "--epochs", "1", "--batch-size", "9", *folds,
        PYTHONPATH=os.pathsep.join([str(work / "broken"), PYTHONPATH]),
    )  # fmt: skip
    assert done.returncode == (3 if how == "dies" else 0), done.stderr
    version = MlflowClient().get_model_version("histo-b3", "1")
    [decision] = read_history(open_store(), "histo-b3")
    assert (decision.version, decision.is_done) == ("1", True)
    whole = version.tags["source_run"]
    runs = {run.info.run_id: run for run in MlflowClient().search_runs(["0"])}
    assert len(runs) == (3 if folds else 1)
    if how == "raises":
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        for run_id in runs:
            assert f"Once that is corrected: histo report {run_id}" in done.stderr
    numbers = {run_id: _kept(run_id, f"evaluation/{'oof' if folds and run_id == whole else 'val'}") for run_id in runs}
    for kept in numbers.values():
        assert set(kept) == NUMBERS | {"baselines.csv"}

    done = histo("report", whole)
    assert done.returncode == 0, done.stderr
    for run_id, before in numbers.items():
        split = "oof" if folds and run_id == whole else "val"
        after = _kept(run_id, f"evaluation/{split}")
        assert set(after) == {*before, *PICTURES, "gallery.png"}
        assert {name: after[name] for name in before} == before
        assert "curves.png" in _kept(run_id)
