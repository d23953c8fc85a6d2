"""The map of probabilities lies over the slide, holds what the model says, and is OME-TIFF by the rules of its readers."""

from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings

from histo_mlflow.base.palette import class_colours
from histo_mlflow.slides.cells import cells_of
from histo_mlflow.slides.probability_map import write_probability_map
from histo_mlflow.slides.scored import ScoredSlide
from tests.slides.scored_slides import draw_scored, scored_slides

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


def _write(scored: ScoredSlide, folder: Path) -> Path:
    write_probability_map(scored, folder / "slide.ome.tif")
    return folder / "slide.ome.tif"


def _pixels(file: Path) -> ET.Element:
    with tifffile.TiffFile(file) as tiff:
        image = ET.fromstring(tiff.ome_metadata).find(f"{OME}Image")
    assert image is not None
    pixels = image.find(f"{OME}Pixels")
    assert pixels is not None
    return pixels


def test_a_pixel_is_a_tile_and_says_how_wide_it_is(tmp_path: Path) -> None:
    scored = draw_scored((3, 4), classes=("A", "B"))
    file = _write(scored, tmp_path)
    drawn = tifffile.imread(file)
    assert drawn.shape == (2, 4, 5)  # the slide goes on for some pixels to the right and below
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn[:, :3, :4].reshape(2, 12).T, scored.probabilities)
    assert not drawn[:, 3:].any()
    assert not drawn[:, :, 4:].any()
    pixels = _pixels(file)
    assert float(pixels.attrib["PhysicalSizeX"]) == float(pixels.attrib["PhysicalSizeY"]) == 56.0
    assert pixels.attrib["PhysicalSizeXUnit"] == "µm"


def test_channels_have_the_names_and_colours_of_the_classes(tmp_path: Path) -> None:
    pixels = _pixels(_write(draw_scored((2, 2)), tmp_path))
    channels = pixels.findall(f"{OME}Channel")
    assert [each.attrib["Name"] for each in channels] == ["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"]
    colours = [int(each.attrib["Color"]).to_bytes(4, "big", signed=True) for each in channels]
    assert ["#" + each[:3].hex().upper() for each in colours] == list(class_colours(9))
    assert {each[3] for each in colours} == {255}
    assert len({each.attrib["ID"] for each in channels}) == 9


def test_overlapping_tiles_lie_within_half_a_pixel(tmp_path: Path) -> None:
    for stride in (0.5, 0.25, 0.37):
        scored = draw_scored((9, 9), stride=stride)
        drawn = tifffile.imread(_write(scored, tmp_path))
        bounds = cells_of(scored).bounds
        stride_px = scored.places.stride_px
        for k in (0, 40, 80):
            (y,), (x,) = np.nonzero((drawn == scored.probabilities[k][:, None, None]).all(axis=0))
            middle = (bounds[k, :2] + bounds[k, 2:]) / 2
            assert np.abs((np.array([x, y]) + 0.5) * stride_px - middle).max() <= stride_px / 2 + 1


def test_a_large_map_has_a_pyramid_whose_means_are_of_tiles_alone(tmp_path: Path) -> None:
    grid = np.random.default_rng(0).random((300, 520)) < 0.4
    scored = draw_scored(grid, classes=("A", "B", "C"), edge_px=16)
    with tifffile.TiffFile(_write(scored, tmp_path)) as tiff:
        assert tiff.is_ome
        assert tiff.is_bigtiff
        (series,) = tiff.series
        assert series.axes == "CYX"
        levels = [level.asarray() for level in series.levels]
        assert (tiff.pages.first.is_tiled, tiff.pages.first.tilewidth, len(tiff.pages)) == (True, 256, 3)
        assert len(tiff.pages.first.subifds) == 2
    assert [level.shape for level in levels] == [(3, 301, 521), (3, 151, 261), (3, 76, 131)]
    for level in levels:
        sums = level.sum(axis=0)
        assert ((np.abs(sums - 1) < 1e-4) | (sums == 0)).all()
    block = levels[0][:, :2, :2].reshape(3, 4)
    seen = block.any(axis=0)
    np.testing.assert_allclose(levels[1][:, 0, 0], block[:, seen].mean(axis=1), rtol=1e-5)


def test_a_slide_without_tiles_has_an_empty_map(tmp_path: Path) -> None:
    drawn = tifffile.imread(_write(draw_scored((0, 0), classes=("A", "B")), tmp_path))
    assert drawn.shape[0] == 2
    assert not drawn.any()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scored_slides())
def test_every_tile_is_on_the_map_whatever_the_slide(tmp_path: Path, scored: ScoredSlide) -> None:
    file = _write(scored, tmp_path)
    drawn = np.atleast_3d(tifffile.imread(file)).reshape(len(scored.classes), -1)
    seen = drawn[:, drawn.any(axis=0)].T
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, scored.probabilities.tolist()))
    assert _pixels(file).attrib["SizeC"] == str(len(scored.classes))
    if len(scored):
        assert drawn.sum() == pytest.approx(len(scored), rel=1e-4)
