"""The table of tiles: WSInfer's columns, the same numbers when it is read again, and one line for what is wrong with one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from histo_mlflow.errors import RequestError, SourceNotFoundError, TileFormatError
from histo_mlflow.slides.scored import ScoredSlide
from histo_mlflow.slides.tile_table import read_tile_table, write_tile_table
from tests.slides.scored_slides import draw_scored, scored_slides


def test_columns_are_those_of_wsinfer_and_then_ours(tmp_path: Path) -> None:
    scored = draw_scored((3, 2), classes=("A", "B"))
    write_tile_table(scored, tmp_path / "t.csv")
    rows = pd.read_csv(tmp_path / "t.csv")
    assert list(rows) == ["minx", "miny", "width", "height", "prob_A", "prob_B", "label", "abstain", "spread"]
    assert rows[["minx", "miny"]].to_numpy().tolist() == [[x, y] for y in (0, 224, 448) for x in (0, 224)]
    assert set(rows["width"]) == set(rows["height"]) == {224}
    assert rows["label"].tolist() == [scored.classes[k] for k in scored.called]
    assert rows["abstain"].tolist() == scored.abstained.tolist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scored_slides())
def test_what_is_read_is_what_was_written(tmp_path: Path, scored: ScoredSlide) -> None:
    file = tmp_path / "t.csv"
    write_tile_table(scored, file)
    table = read_tile_table(file, stride_px=scored.places.stride_px)
    assert table.classes == scored.classes
    assert table.probabilities.dtype == np.float32
    np.testing.assert_array_equal(table.probabilities, scored.probabilities)
    np.testing.assert_array_equal(table.places.left, scored.places.left)
    np.testing.assert_array_equal(table.places.top, scored.places.top)
    for read, written in ((table.abstained, scored.abstained), (table.spread, scored.spread)):
        assert (read is None) == (written is None)
        if written is not None:
            np.testing.assert_array_equal(read, written)
    if len(scored):
        assert (table.places.edge_px, table.places.stride_px) == (scored.places.edge_px, scored.places.stride_px)


def test_a_table_of_wsinfer_is_read(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text(
        "minx,miny,width,height,prob_notumor,prob_tumor\n0,700,350,350,0.9,0.1\n350,700,350,350,1,0\n"
    )
    table = read_tile_table(tmp_path / "w.csv")
    assert (table.classes, table.places.edge_px, table.abstained) == (("notumor", "tumor"), 350, None)


HEAD = "minx,miny,width,height,prob_A,prob_B,label,abstain\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not begin with the columns"),
        ("x,y\n1,2\n", "does not begin with the columns"),
        ("minx,miny,width,height,label\n", "no column prob_CLASS"),
        ("minx,miny,width,height,prob_A,prob_A\n", "twice"),
        (HEAD + "0,0,9,9,0.5\n", "line 2: prob_B is ''"),
        (HEAD + "0,0,9,9,0.5,nan,A,true\n", "line 2: prob_B is 'nan', not a number"),
        (HEAD + "0,0,9,9,0.7,0.3,A,true\n0,0,9,9,0.7,0.4,A,true\n", "line 3: the probabilities"),
        (HEAD + "0,0,9,9,1.5,-0.5,A,true\n", "line 2: the probabilities"),
        (HEAD + "0,0,9,9,0.7,0.3,B,true\n", "line 2: label is not the class"),
        (HEAD + "0,0,9,9,0.7,0.3,A,perhaps\n", "line 2: abstain is neither"),
        (HEAD + "0,0,9,8,0.7,0.3,A,true\n", "line 2: the tile is no square"),
        (HEAD + "0.5,0,9,9,0.7,0.3,A,true\n", "line 2: the tile is no square"),
        (HEAD + "0,0,9,9,0.7,0.3,A,true,more,and,more\n", "more values than columns"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "t.csv"
    file.write_text(text)
    with pytest.raises(TileFormatError) as raised:
        read_tile_table(file)
    assert said in str(raised.value)
    assert str(file) in str(raised.value)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        read_tile_table(tmp_path / "none.csv")
    (tmp_path / "picture.csv").write_bytes(bytes(range(256)) * 50)
    with pytest.raises(RequestError):
        read_tile_table(tmp_path / "picture.csv")
