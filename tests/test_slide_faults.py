"""`slide` where something is not sure or not whole: tiles that can't be decoded, tiles that the model abstains from."""

import csv
import gzip
import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from histo_mlflow.pipeline.slides.model import MOST_UNREADABLE
from histo_mlflow.slides.tile_table import TileTable, read_tile_table
from tests.colour_reader import register
from tests.coloured_slides import MODEL_MICRONS, chessboard, draw, write_slide
from tests.conftest import Histo
from tests.slide_writers import break_tile
from tests.test_slide import PLAIN

pytestmark = pytest.mark.usefixtures("work")

MICRONS, TILE_PX, N_COLUMNS = 1.2, 128, 36
"""Tiles are read at the finest level, of which some is broken, and the overviews at coarser ones."""


@pytest.fixture
def whole(histo_here: Histo) -> TileTable:
    """The tiles of a whole slide, which is a copy of the one that tests break."""
    register(0.0, microns_per_pixel=MODEL_MICRONS)
    for folder in ("whole", "slides"):
        Path(folder).mkdir()
        write_slide(Path(folder) / "one.tif", draw(chessboard(0, (8, N_COLUMNS))), microns=MICRONS)
    done = histo_here("slide", "--slides", "whole", "--output", "scored-whole", *PLAIN)
    assert done.returncode == 0, done.stderr
    return read_tile_table(Path("scored-whole/one.csv"))


def _touches(table: TileTable, columns: range, row: int) -> NDArray[np.bool_]:
    """Return which tiles need some of the tiles of the file in a row of it."""
    left, top, edge = table.places.left, table.places.top, table.places.edge_px
    across = (left < columns.stop * TILE_PX) & (left + edge > columns.start * TILE_PX)
    touching: NDArray[np.bool_] = across & (top < (row + 1) * TILE_PX) & (top + edge > row * TILE_PX)
    return touching


def test_tiles_that_cant_be_decoded_are_left_out_and_said(whole: TileTable, histo_here: Histo) -> None:
    break_tile(Path("slides/one.tif"), 3 * N_COLUMNS + 5)
    done = histo_here("slide", "--slides", "slides", "--output", "scored", *PLAIN)
    assert done.returncode == 0, done.stderr
    broken = _touches(whole, range(5, 6), 3)
    assert 0 < broken.mean() < MOST_UNREADABLE
    found = read_tile_table(Path("scored/one.csv"))
    np.testing.assert_array_equal(found.places.left, whole.places.left[~broken])
    np.testing.assert_array_equal(found.places.top, whole.places.top[~broken])
    np.testing.assert_array_equal(found.probabilities, whole.probabilities[~broken])
    said = f"one: {broken.sum()} of {len(broken)} tiles can't be decoded and are left out"
    assert said in done.stderr
    at = np.flatnonzero(broken)[0]
    assert f"at {whole.places.left[at]}, {whole.places.top[at]}; " in done.stderr
    state = json.loads(Path("scored/state/one.json").read_text())
    assert state["unreadable"] == np.stack([whole.places.left[broken], whole.places.top[broken]], axis=1).tolist()
    with Path("scored/summary.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["state"], row["tiles"], row["unreadable_tiles"]) == ("done", str((~broken).sum()), str(broken.sum()))
    (run, *_) = mlflow.MlflowClient().search_runs(["0"], order_by=["attributes.start_time DESC"])
    assert run.data.metrics["slide/unreadable_tiles"] == broken.sum()
    pictures = [np.asarray(Image.open(f"{folder}/one.png").convert("RGB")) for folder in ("scored", "scored-whole")]
    black = [(picture == 0).all(axis=2).sum() for picture in pictures]
    assert black[0] > black[1] + 100, "the hole is seen"
    again = histo_here("slide", "--slides", "slides", "--output", "scored", *PLAIN)
    assert "1 done before" in again.stdout


def test_a_slide_of_which_too_much_cant_be_decoded_is_given_up(whole: TileTable, histo_here: Histo) -> None:
    for column in range(5, 19):
        break_tile(Path("slides/one.tif"), 3 * N_COLUMNS + column)
    assert _touches(whole, range(5, 19), 3).mean() > MOST_UNREADABLE
    write_slide(Path("slides/two.tif"), draw(chessboard(2)))
    done = histo_here("slide", "--slides", "slides", "--output", "scored", *PLAIN)
    assert done.returncode == 1
    assert f"more than 5% of {len(whole.places)} tiles can't be decoded" in done.stderr.strip().splitlines()[-1]
    with Path("scored/summary.csv").open() as file:
        one, two = csv.DictReader(file)
    assert one["state"].startswith("failed: more than 5%")
    assert two["state"] == "done"
    assert not Path("scored/one.csv").exists()


def test_tiles_of_which_the_model_is_not_sure_are_drawn_as_such(histo_here: Histo) -> None:
    """Tiles that lie half over the next square are half of another colour: neither class has the probability that is needed."""
    threshold = 0.9
    register(0.0, microns_per_pixel=MODEL_MICRONS, abstain_below=threshold)
    write_slide(Path("one.tif"), draw(chessboard(0)))
    asked = ("slide", "--slides", "one.tif", "--stride", "0.5", *PLAIN)
    for output, more in (("plain", ()), ("scored", ("--abstain",))):
        done = histo_here(*asked, "--output", output, *more)
        assert done.returncode == 0, done.stderr
    plain, table = read_tile_table(Path("plain/one.csv")), read_tile_table(Path("scored/one.csv"))
    assert plain.abstained is None
    assert table.abstained is not None
    np.testing.assert_array_equal(table.probabilities, plain.probabilities)
    np.testing.assert_array_equal(table.abstained, table.probabilities.max(axis=1) < threshold)
    assert 0.1 < table.abstained.mean() < 0.9
    with Path("scored/summary.csv").open() as file:
        (row,) = csv.DictReader(file)
    areas = [float(row[f"area_mm2_{name}"]) for name in table.classes]
    assert 0 < float(row["abstained_share"]) < 1
    assert sum(areas) == pytest.approx(float(row["scored_mm2"]) * (1 - float(row["abstained_share"])), rel=1e-4)
    features = json.loads(gzip.decompress(Path("scored/one.geojson.gz").read_bytes()))["features"]
    tiles = [each["properties"] for each in features if each["properties"]["objectType"] == "tile"]
    assert sum(each["classification"]["name"] == "not sure" for each in tiles) == table.abstained.sum()


def test_a_model_without_a_threshold_cant_abstain(histo_here: Histo) -> None:
    register(0.0, microns_per_pixel=MODEL_MICRONS)
    write_slide(Path("one.tif"), draw(chessboard(0)))
    done = histo_here("slide", "--slides", "one.tif", "--output", "scored", "--abstain", *PLAIN)
    assert done.returncode == 2
    assert "no threshold to abstain by" in done.stderr
    assert not Path("scored").exists()
