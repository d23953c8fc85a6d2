"""The heat map shows what the tiles say: colours, hatching, areas, and words where there is nothing to see."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from matplotlib.text import Text
from PIL import Image

from histo_mlflow.base.palette import NOT_SURE, OF_CLASSES, channels
from histo_mlflow.slides import heat_map_layers as layers
from histo_mlflow.slides.heat_map import Backdrop, draw_heat_map, write_heat_map
from histo_mlflow.slides.heat_map_sheet import shortened
from histo_mlflow.slides.scored import ScoredSlide
from histo_mlflow.slides.tissue import Tissue
from histo_mlflow.slides.verdicts import verdicts_of
from tests.slides.scored_slides import draw_scored, scored_slides

SMALLEST_PX = 14


def _backdrop(scored: ScoredSlide, tissue: Tissue | None = None) -> Backdrop:
    width, height = scored.size_px
    picture = np.full((max(1, height // 16), max(1, width // 16), 3), 255, np.uint8)
    return Backdrop(picture, tissue, "histo-b3 version 3", "29 November 2026")


def _texts(scored: ScoredSlide, tissue: Tissue | None = None) -> list[str]:
    picture = draw_heat_map(scored, _backdrop(scored, tissue))
    texts = [text for text in picture.findobj(Text) if isinstance(text, Text) and text.get_text()]
    assert min(text.get_fontsize() * 100 / 72 for text in texts) >= SMALLEST_PX
    return [text.get_text() for text in texts]


def test_each_tile_has_the_colour_of_its_class_in_its_place() -> None:
    scored = draw_scored((3, 4), classes=("A", "B", "C"), edge_px=100)
    verdicts = verdicts_of(scored)
    size = scored.size_px[0], scored.size_px[1]
    ground = layers.lay_ground(scored, np.full((50, 50, 3), 255, np.uint8), None, size)
    painted = layers.paint_verdicts(ground, verdicts)
    free = ~layers.hatch(painted.shape[:2])
    for k in range(len(scored)):
        left, top = scored.places.left[k], scored.places.top[k]
        tile, lines = painted[top : top + 100, left : left + 100], free[top : top + 100, left : left + 100]
        expected = NOT_SURE if scored.abstained[k] else OF_CLASSES[scored.called[k]]
        assert (tile[lines] == channels(expected)).all()
        assert (tile[~lines] == channels(expected)).all() == (not scored.abstained[k])
    assert (painted[302:] == 255).all()  # no tile there


def test_numbers_run_from_dark_to_light() -> None:
    scored = draw_scored((1, 3), classes=("A", "B"), edge_px=10)
    ground = layers.lay_ground(scored, np.full((5, 5, 3), 255, np.uint8), None, scored.size_px)
    painted = layers.paint_numbers(ground, np.array([0.5, 0.75, 1.0], np.float32), (0.5, 1.0))
    light = painted[5, [5, 15, 25]].astype(int).sum(axis=1)
    assert light[0] < light[1] < light[2]


def test_the_border_of_the_tissue_is_drawn_where_it_is() -> None:
    scored = draw_scored((2, 2), edge_px=100)
    mask = np.zeros((30, 30), bool)
    mask[5:15, 5:15] = True
    ground = layers.lay_ground(scored, np.full((9, 9, 3), 255, np.uint8), Tissue(mask, 8.0), scored.size_px)
    rows, columns = np.nonzero(ground.outline)
    assert (rows.min(), columns.min(), rows.max(), columns.max()) == (40, 40, 119, 119)
    assert not ground.outline[60, 60]


def test_the_legend_says_shares_and_areas() -> None:
    scored = draw_scored((10, 10), classes=("A", "B"))
    texts = _texts(scored, Tissue(np.ones((3, 3), bool), 100.0))
    sure = ~scored.abstained
    for k in range(2):
        area = (scored.called[sure] == k).sum() * 0.056**2
        assert f"{area:.2f}" in texts
    assert f"{100 * scored.abstained.mean():.1f} %" in texts
    assert {"a slide", "A", "B", "not sure", "share", "mm²", "Class of each tile"} <= set(texts)
    assert any("histo-b3 version 3" in text and "29 November 2026" in text and "100 tiles of 56 µm" in text for text in texts)
    assert any("Tissue: 0.01 mm²" in text for text in texts)
    assert "0.1 mm" in texts  # the scale bar
    assert any("Spread" in text for text in texts)


def test_a_slide_without_tissue_says_so(tmp_path: Path) -> None:
    empty = ScoredSlide("blank", (9000, 4000), 0.25, draw_scored((0, 0)).places, ("A", "B"), np.zeros((0, 2), np.float32))
    assert any("No tissue was found" in text for text in _texts(empty, Tissue(np.zeros((40, 90), bool), 100.0)))
    write_heat_map(empty, _backdrop(empty), tmp_path / "blank.png")
    assert Image.open(tmp_path / "blank.png").width > 1000


def test_many_classes_and_long_names_stay_on_the_sheet() -> None:
    scored = draw_scored((20, 20), classes=[f"a class with the long number {k}" for k in range(40)])
    texts = _texts(ScoredSlide("x" * 300, *_but_name(scored)))
    assert any("smaller classes" in text for text in texts)
    assert max(len(text) for line in texts for text in line.split("\n")) < 200


def _but_name(scored: ScoredSlide) -> tuple[object, ...]:
    return scored.size_px, 0.25, scored.places, scored.classes, scored.probabilities, scored.abstained, scored.spread


@pytest.mark.parametrize("size", [(60_000, 3_000), (3_000, 60_000), (300, 300)])
def test_pictures_of_narrow_slides_can_be_looked_at(tmp_path: Path, size: tuple[int, int]) -> None:
    scored = draw_scored((1, 1))
    slide = ScoredSlide("narrow", size, *_but_name(scored)[1:])
    write_heat_map(slide, _backdrop(slide), tmp_path / "narrow.png")
    width, height = Image.open(tmp_path / "narrow.png").size
    assert 500 < height < 2000
    assert 1000 < width < 2500


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scored_slides())
def test_it_is_drawn_whatever_the_slide(tmp_path: Path, scored: ScoredSlide) -> None:
    write_heat_map(scored, _backdrop(scored), tmp_path / "slide.png")
    assert Image.open(tmp_path / "slide.png").width > 1000


def test_names_keep_both_ends() -> None:
    assert shortened("TCGA-AA-3492-01Z", 20) == "TCGA-AA-3492-01Z"
    assert shortened("TCGA-AA-3492-01Z-00-DX1", 11) == "TCGA-…0-DX1"
