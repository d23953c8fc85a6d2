"""`slide` on drawn slides: every square is in its place, odd slides end nothing, what is done is not done again."""

from pathlib import Path

import numpy as np
import pytest

from histo_mlflow.slides.tile_table import read_tile_table
from tests.colour_reader import CLASSES, register
from tests.conftest import Histo
from tests.drawn_slides import EDGE_PX, MODEL_MICRONS, chessboard, draw, write_slide

pytestmark = pytest.mark.usefixtures("work")
PLAIN = ("--ink", "none")  # pure colours are what pens have


def _scored(histo: Histo, *more: str, slides: str = "slides", output: str = "scored") -> tuple[int, str, str]:
    done = histo("slide", "--slides", slides, "--output", output, *PLAIN, *more)
    return done.returncode, done.stdout, done.stderr


def test_each_square_is_in_its_place(histo_here: Histo) -> None:
    register(0.0, microns_per_pixel=MODEL_MICRONS)
    Path("slides").mkdir()
    called = chessboard(0)
    write_slide(Path("slides/one.tif"), draw(called))
    code, said, error = _scored(histo_here)
    assert code == 0, error
    assert "1 done" in said
    table = read_tile_table(Path("scored/one.csv"))
    rows, columns = np.nonzero(called >= 0)
    assert table.places.left.tolist() == (columns * EDGE_PX).tolist()
    assert table.places.top.tolist() == (rows * EDGE_PX).tolist()
    assert table.probabilities.argmax(axis=1).tolist() == called[rows, columns].tolist()
    assert table.classes == CLASSES
