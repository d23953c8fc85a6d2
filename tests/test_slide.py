"""`slide` on drawn slides: every square is in its place, odd slides end nothing, what is done is not done again."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from histo_mlflow.slides.tile_table import read_tile_table
from histo_mlflow.tracking.kept import state_of
from tests.colour_reader import CLASSES, register
from tests.coloured_slides import EDGE_PX, MODEL_MICRONS, chessboard, draw, write_odd_slides, write_slide
from tests.conftest import Histo
from tests.forking import Forks

PLAIN = ("--ink", "none")  # pure colours are what pens have
OUTPUTS = {".csv", ".geojson.gz", ".ome.tif", ".png", ".tissue.geojson", ".zarr"}


@pytest.fixture
def slides(work: Path) -> Path:
    """A folder with one slide, and a model in Production that knows its colours."""
    register(0.0, microns_per_pixel=MODEL_MICRONS)
    folder = work / "slides"
    folder.mkdir()
    write_slide(folder / "one.tif", draw(chessboard(0)))
    return folder


def score(histo: Histo, *more: str, source: str = "slides") -> str:
    done = histo("slide", "--slides", source, "--output", "scored", *PLAIN, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _last_run() -> mlflow.entities.Run:
    (run, *_) = mlflow.MlflowClient().search_runs(["0"], order_by=["attributes.start_time DESC"])
    return run


def _summary() -> dict[str, dict[str, str]]:
    with Path("scored/summary.csv").open() as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


@pytest.mark.usefixtures("slides")
def test_each_square_is_in_its_place_and_all_is_kept_with_the_run(histo_here: Histo) -> None:
    said = score(histo_here)
    called = chessboard(0)
    table = read_tile_table(Path("scored/one.csv"))
    rows, columns = np.nonzero(called >= 0)
    assert table.places.left.tolist() == (columns * EDGE_PX).tolist()
    assert table.places.top.tolist() == (rows * EDGE_PX).tolist()
    assert table.probabilities.argmax(axis=1).tolist() == called[rows, columns].tolist()
    assert table.classes == CLASSES
    assert {path.name.removeprefix("one") for path in Path("scored").glob("one*")} == OUTPUTS
    state = json.loads(Path("scored/state/one.json").read_text())
    assert _summary()["one"]["sha256"] == state["sha256"]
    assert f"{len(rows)} tiles" in said

    run = _last_run()
    assert run.info.status == "FINISHED"
    assert run.data.tags["histo.model"] == "models:/histo-b3/1"
    about = json.loads(
        Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="about.json")).read_text()
    )
    assert about["model_sha256"] == state["model_sha256"]
    shares = {name: run.data.metrics[f"slide/share/{name}"] for name in CLASSES}
    assert shares == pytest.approx({name: np.mean(called[called >= 0] == k) for k, name in enumerate(CLASSES)}, abs=1e-6)
    client = mlflow.MlflowClient()
    kept = {each.path for each in client.list_artifacts(run.info.run_id, "slides")}
    assert kept == {f"slides/one{ending}" for ending in (".csv", ".geojson.gz", ".png")}
    assert {each.path for each in client.list_artifacts(run.info.run_id)} >= {"config.yaml", "summary.csv"}
    (read,) = run.inputs.dataset_inputs
    assert state["sha256"] in read.dataset.profile
    assert "| one |" in run.data.tags["mlflow.note.content"]


@pytest.mark.usefixtures("slides")
def test_what_is_done_is_done_again_only_for_another_model_option_or_slide(histo_here: Histo) -> None:
    def runs(*more: str) -> bool:
        return "1 done;" in score(histo_here, *more)

    assert runs()
    assert not runs()
    assert not runs("--keep", "summary")  # changes no result
    assert runs("--stride", "0.5")
    assert not runs("--stride", "0.5")
    register(1.0, microns_per_pixel=MODEL_MICRONS)
    assert runs("--model", "models:/histo-b3/2", "--stride", "0.5")
    assert runs()
    os.utime("slides/one.tif")
    assert not runs()  # the same content at another time
    write_slide(Path("slides/one.tif"), draw(chessboard(1)))
    assert runs()
    Path("scored/one.csv").unlink()
    assert runs()
    Path("scored/state/one.json").write_text("{")
    assert runs()
    assert not list(Path("scored/state").glob("*.draft")) + list(Path("scored/state").glob("*.claim*"))


def test_odd_slides_are_named_and_end_nothing(slides: Path, histo_here: Histo) -> None:
    wanted = write_odd_slides(slides)
    write_slide(slides / "blank.tif", draw(np.full((8, 10), -1)))
    done = histo_here("slide", "--slides", "slides", "--output", "scored", *PLAIN)
    assert done.returncode == 1
    error = done.stderr.strip().splitlines()[-1]
    assert "5 of 7 slides could not be scored" in error
    summary = _summary()
    for name, words in wanted.items():
        assert words in error, name
        assert summary[name]["state"].startswith("failed: ")
        assert words in summary[name]["state"]
    assert summary["one"]["state"] == "done"
    assert summary["blank"]["state"] == "no tissue"
    assert summary["blank"]["tiles"] == "0"
    assert {path.name.removeprefix("blank") for path in Path("scored").glob("blank*")} == OUTPUTS
    assert "blank: 0 tiles" in done.stdout
    run = _last_run()
    assert run.info.status == "FAILED"
    assert "**scaleless failed**" in run.data.tags["mlflow.note.content"]
    given = histo_here("slide", "--slides", "slides/scaleless.tif", "--output", "scored", "--mpp", "0.5", *PLAIN)
    assert given.returncode == 0, given.stderr
    assert _summary()["scaleless"]["state"] == "done"


def test_a_table_gives_scales_and_goes_before_the_file(slides: Path, histo_here: Histo) -> None:
    write_slide(slides / "bare.tif", draw(chessboard(3)), microns=None)
    Path("slides.csv").write_text("slide,mpp\nslides/one.tif,1.0\nslides/bare.tif,0.5\n")
    score(histo_here, source="slides.csv")
    edges = {name: read_tile_table(Path(f"scored/{name}.csv")).places.edge_px for name in ("one", "bare")}
    assert edges == {"one": EDGE_PX // 2, "bare": EDGE_PX}
    Path("slides.csv").write_text("slide,mpp\nslides/one.tif,\nslides/bare.tif,0.5\n")
    assert "1 done, 1 done before" in score(histo_here, source="slides.csv")


@pytest.mark.usefixtures("slides")
def test_a_model_without_a_scale_must_be_given_one(histo_here: Histo) -> None:
    register(0.0)
    asked = ("slide", "--model", "models:/histo-b3/2", "--slides", "slides", "--output", "scored", *PLAIN)
    done = histo_here(*asked)
    assert done.returncode == 2
    assert "does not say at which scale it has learnt" in done.stderr
    assert histo_here(*asked, "--model-mpp", "2").returncode == 0
    done = histo_here(*asked[:2], "models:/histo-b3/1", *asked[3:], "--model-mpp", "1")
    assert done.returncode == 2
    assert "has learnt at 2 um per pixel" in done.stderr


def test_tissue_that_is_given_is_where_it_looks(slides: Path, histo_here: Histo) -> None:
    mask = np.zeros((8, 10), np.uint8)
    mask[2:4, 3:6] = 255
    Path("masks").mkdir()
    Image.fromarray(mask).save("masks/one.png")
    score(histo_here, "--tissue", "masks")
    table = read_tile_table(Path("scored/one.csv"))
    assert (table.places.left // EDGE_PX).tolist() == [3, 4, 5, 3, 4, 5]
    mask[2, 3] = 0
    Image.fromarray(mask).save("masks/one.png")
    assert "1 done;" in score(histo_here, "--tissue", "masks")  # as it is now
    assert len(read_tile_table(Path("scored/one.csv")).places) == 5
    assert "1 done;" in score(histo_here)
    found = read_tile_table(Path("scored/one.csv")).places
    edited = Path("scored/one.tissue.geojson").read_text().replace('"Tissue"', '"Drawn"')
    Path("scored/one.tissue.geojson").write_text(edited)
    assert "1 done;" in score(histo_here, "--tissue", "scored")  # what was found, as it was edited
    assert "1 done before;" in score(histo_here, "--tissue", "scored")
    np.testing.assert_array_equal(read_tile_table(Path("scored/one.csv")).places.left, found.left)
    for more in ((), ("--stride", "0.5"), ()):  # a person's, which nobody else writes over, however often
        assert "1 done;" in score(histo_here, *more)
        assert Path("scored/one.tissue.geojson").read_text() == edited
    Path("scored/one.tissue.geojson").unlink()
    assert "1 done;" in score(histo_here, "--stride", "0.5")
    as_found = Path("scored/one.tissue.geojson").read_bytes()
    assert "1 done;" in score(histo_here, "--tissue", "masks")
    assert "1 done;" in score(histo_here, "--smallest-tissue-um2", "1e9")
    assert Path("scored/one.tissue.geojson").read_bytes() != as_found  # nobody's, and not left from other options
    write_slide(slides / "two.tif", draw(chessboard(2)))
    done = histo_here("slide", "--slides", "slides", "--output", "scored", *PLAIN, "--tissue", "masks")
    assert done.returncode == 1
    assert "holds no two.geojson" in done.stderr


@pytest.mark.usefixtures("slides")
def test_ctrl_c_leaves_what_is_whole_and_nothing_else(slides: Path, work: Path, forks: Forks, histo_here: Histo) -> None:
    for k in range(20):
        write_slide(slides / f"more{k:02d}.tif", draw(chessboard(k)))
    states = work / "scored" / "state"
    asked = ("slide", "--slides", "slides", "--output", "scored", *PLAIN)
    pid = forks.start(*asked, cwd=work, log=work / "log", environment=os.environ)
    deadline = time.monotonic() + 300
    while not list(states.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(pid, signal.SIGINT)
    assert forks.wait(pid) == 1, (work / "log").read_text()
    assert "interrupted by SIGINT" in (work / "log").read_text()
    n_done = len(list(states.glob("*.json")))
    assert 0 < n_done < 21
    assert not [path.name for path in states.iterdir() if not path.name.endswith(".json")]
    assert len(_summary()) == n_done
    assert state_of(_last_run()) == "KILLED"
    assert f"{21 - n_done} done, {n_done} done before" in score(histo_here)
