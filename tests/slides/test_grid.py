"""Tiles lie where they are said to lie, and hold the share of tissue that they are said to hold."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histo_mlflow.errors import OptionError
from histo_mlflow.slides.grid import lay_grid
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.slide import coarsest_level
from histo_mlflow.slides.tissue import Tissue


@dataclass(frozen=True)
class _Blank:
    """A slide as the grid knows it: its size and scale."""

    size_px: tuple[int, int]
    microns_per_pixel: float | None
    path: Path = Path("blank.svs")
    downsamples: tuple[float, ...] = (1.0,)

    def read(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        raise NotImplementedError

    def close(self) -> None: ...


def _all_tissue(slide: _Blank, downsample: float = 16.0) -> Tissue:
    width, height = slide.size_px
    return Tissue(np.ones((int(np.ceil(height / downsample)), int(np.ceil(width / downsample))), bool), downsample)


def test_tiles_of_a_20x_model_on_a_40x_slide() -> None:
    slide = _Blank((2000, 1000), 0.25)
    places = lay_grid(slide, _all_tissue(slide), size_px=224, microns_per_pixel=0.5)
    assert places.edge_px == 448
    assert places.stride_px == 448
    # Half of a tile must be tissue, and what reaches over the end is none: the last column has 208 of 448 px.
    assert places.left.tolist() == [0, 448, 896, 1344] * 2
    assert places.top.tolist() == [0] * 4 + [448] * 4
    more = lay_grid(slide, _all_tissue(slide), size_px=224, microns_per_pixel=0.5, least_tissue=0.1)
    assert sorted(set(more.left.tolist())) == [0, 448, 896, 1344, 1792]
    assert sorted(set(more.top.tolist())) == [0, 448, 896]


def test_scales_that_are_not_whole() -> None:
    slide = _Blank((100_000, 300), 0.2528)
    places = lay_grid(slide, _all_tissue(slide), size_px=224, microns_per_pixel=0.5, stride=0.3)
    assert places.edge_px == 443
    first_row = places.left[places.top == 0]
    np.testing.assert_array_equal(first_row, np.rint(np.arange(len(first_row)) * 443 * 0.3))


@given(
    size=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    slide_microns=st.floats(0.1, 1.2),
    model_microns=st.floats(0.25, 2.0),
    stride=st.floats(0.2, 2.0),
    least_tissue=st.floats(0.0, 1.0),
    seed=st.integers(0, 9),
)
def test_grid_is_regular_and_complete(
    size: tuple[int, int], slide_microns: float, model_microns: float, stride: float, least_tissue: float, seed: int
) -> None:
    slide = _Blank(size, slide_microns)
    tissue = _all_tissue(slide, 10.7)
    tissue = Tissue(tissue.mask & (np.random.default_rng(seed).random(tissue.mask.shape) < 0.7), tissue.downsample)
    places = lay_grid(slide, tissue, size_px=56, microns_per_pixel=model_microns, stride=stride, least_tissue=least_tissue)
    assert places.edge_px == round(56 * model_microns / slide_microns)
    order = np.lexsort((places.left, places.top))
    np.testing.assert_array_equal(order, np.arange(len(places)))
    columns, rows = places.left / places.stride_px, places.top / places.stride_px
    for steps, starts in ((columns, places.left), (rows, places.top)):
        np.testing.assert_array_equal(np.rint(np.rint(steps) * places.stride_px), starts)
    assert (places.left < size[0]).all()
    assert (places.top < size[1]).all()
    # Each tile of the whole grid with enough tissue is there, once.
    n_columns, n_rows = (int(np.ceil(length / places.stride_px)) for length in size)
    left, top = np.meshgrid(np.rint(np.arange(n_columns) * places.stride_px), np.rint(np.arange(n_rows) * places.stride_px))
    whole = Places(left.ravel().astype(np.int64), top.ravel().astype(np.int64), places.edge_px, places.stride_px)
    share = tissue.share_of(whole)
    enough = (share >= least_tissue - 1e-9) & (share > 0) & (whole.left < size[0]) & (whole.top < size[1])
    assert {*zip(places.left, places.top, strict=True)} == {*zip(whole.left[enough], whole.top[enough], strict=True)}


@given(
    seed=st.integers(0, 1000),
    downsample=st.floats(0.7, 40.0),
    edge=st.integers(1, 300),
    places=st.lists(st.tuples(st.integers(-50, 500), st.integers(-50, 500)), min_size=1, max_size=8),
)
def test_share_is_the_overlap_with_each_pixel_of_the_mask(
    seed: int, downsample: float, edge: int, places: list[tuple[int, int]]
) -> None:
    generator = np.random.default_rng(seed)
    mask = generator.random((int(generator.integers(1, 40)), int(generator.integers(1, 40)))) < 0.5
    left, top = np.array(places, dtype=np.int64).T
    shares = Tissue(mask, downsample).share_of(Places(left, top, edge, edge))

    def overlaps(start: int, n: int) -> np.ndarray:
        pixels = np.arange(n) * downsample
        return np.clip(np.minimum(pixels + downsample, start + edge) - np.maximum(pixels, start), 0, None)

    for share, (x, y) in zip(shares, places, strict=True):
        area = overlaps(y, mask.shape[0]) @ mask @ overlaps(x, mask.shape[1])
        assert share == pytest.approx(area / edge**2, abs=1e-9)


def test_no_tissue_gives_no_tiles() -> None:
    slide = _Blank((5000, 5000), 0.5)
    nowhere = Tissue(np.zeros((300, 300), bool), 16.7)
    assert len(lay_grid(slide, nowhere, size_px=224, microns_per_pixel=0.5, least_tissue=0)) == 0


def test_refusals() -> None:
    unknown, coarse = _Blank((5000, 5000), None), _Blank((5000, 5000), 8.0)
    with pytest.raises(OptionError, match=r"blank\.svs does not state its microns per pixel"):
        lay_grid(unknown, _all_tissue(unknown), size_px=224, microns_per_pixel=0.5)
    with pytest.raises(OptionError, match=r"less than a pixel of a slide at 8"):
        lay_grid(coarse, _all_tissue(coarse), size_px=5, microns_per_pixel=0.5)


def test_coarsest_level_that_is_fine_enough() -> None:
    slide = _Blank((40_001, 30_000), 0.25, downsamples=(1.0, 4.0004, 16.003))
    assert [coarsest_level(slide, needed) for needed in (0.5, 1.0, 2.0, 3.9, 4.0, 8.0, 16.0, 100.0)] == [0, 0, 0, 0, 1, 1, 2, 2]


def test_area() -> None:
    assert Tissue(np.ones((10, 20), bool), 16.0).area_mm2(0.5) == pytest.approx(200 * 0.008**2)
