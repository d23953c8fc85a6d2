"""Tiles come as the plain way gives them (the box at level 0, resized by Pillow), whatever is read at once and ahead."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo_mlflow.errors import UnreadableSlideError
from histo_mlflow.slides.grid import lay_grid
from histo_mlflow.slides.open import open_slide
from histo_mlflow.slides.openslide_reader import open_openslide
from histo_mlflow.slides.options import TissueOptions
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.stream import StreamOptions, stream_tiles
from histo_mlflow.slides.tissue import Tissue, find_tissue
from tests.slide_writers import TILE_PX, WRITERS, Pixels, break_tile, draw_picture, write_generic

PICTURE = draw_picture()
HEIGHT, WIDTH = PICTURE.shape[:2]


def _everywhere(slide: Slide) -> Tissue:
    return Tissue(np.ones((-(-slide.size_px[1] // 16), -(-slide.size_px[0] // 16)), bool), 16.0)


def _tiles(slide: Slide, places: Places, size_px: int, options: StreamOptions | None = None) -> Pixels:
    rows, tiles = zip(*stream_tiles(slide, places, size_px, options or StreamOptions(batch_size=7)), strict=True)
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(len(places)))
    return np.concatenate(tiles)


def _plain(picture: Pixels, places: Places, size_px: int) -> Pixels:
    """Return each box of a picture, white beyond it, resized by Pillow."""
    edge = places.edge_px
    canvas = np.full((picture.shape[0] + edge, picture.shape[1] + edge, 3), 255, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    boxes = (canvas[y : y + edge, x : x + edge] for x, y in zip(places.left, places.top, strict=True))
    return np.stack([np.asarray(Image.fromarray(box).resize((size_px, size_px), Image.Resampling.BICUBIC)) for box in boxes])


@pytest.mark.parametrize("container", WRITERS)
@pytest.mark.parametrize("stride", [1.0, 0.4, 1.7])
def test_tiles_at_the_slides_own_scale_are_its_pixels(container: str, stride: float, tmp_path: Path) -> None:
    name, write = WRITERS[container]
    with closing(open_slide(write(tmp_path / name, PICTURE, 0.5))) as slide:
        places = lay_grid(slide, _everywhere(slide), size_px=96, microns_per_pixel=0.5, stride=stride, least_tissue=0)
        assert places.edge_px == 96
        tiles = _tiles(slide, places, 96)
        assert places.left.max() + 96 > WIDTH  # one reaches over the end
        np.testing.assert_array_equal(tiles, _plain(PICTURE, places, 96))


@pytest.mark.parametrize("container", WRITERS)
@pytest.mark.parametrize(("model", "edge"), [(0.5, 192), (0.3, 115), (0.2, 77)])
def test_tiles_of_another_scale_are_resized_as_by_pillow(container: str, model: float, edge: int, tmp_path: Path) -> None:
    name, write = WRITERS[container]
    with closing(open_slide(write(tmp_path / name, PICTURE, 0.25))) as slide:
        places = lay_grid(slide, _everywhere(slide), size_px=96, microns_per_pixel=model, stride=0.7, least_tissue=0)
        assert places.edge_px == edge
        difference = np.abs(_tiles(slide, places, 96).astype(int) - _plain(PICTURE, places, 96))
        assert difference.max() <= 2
        assert (difference > 0).mean() < 0.02


def test_squares_lie_in_their_places_at_a_coarse_level(tmp_path: Path) -> None:
    """Of 1501 px a fourth is 375: the level is 4.0027 times as coarse, and tiles begin between its pixels."""
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = np.full((1100, 1501, 3), 243, np.uint8)
    blocks = colours.repeat(90, axis=0).repeat(90, axis=1)
    picture[:1080, :1440] = blocks
    with closing(open_slide(write_generic(tmp_path / "slide.tif", picture, 0.25))) as slide:
        assert slide.downsamples[1] == pytest.approx(1501 / 375)
        columns, rows = np.meshgrid(np.arange(16), np.arange(12))
        places = Places(columns.ravel() * 90, rows.ravel() * 90, 90, 90.0)
        tiles = _tiles(slide, places, 20)
        # What is left of a shift of half a pixel of the level lies in the outermost pixels.
        np.testing.assert_allclose(tiles[:, 2:-2, 2:-2].mean((1, 2)), colours.reshape(-1, 3), atol=1.0)
        assert np.abs(tiles[:, 2:-2, 2:-2].astype(int) - colours.reshape(-1, 1, 1, 3)).max() <= 2


def test_a_tile_does_not_depend_on_what_is_read_with_it(tmp_path: Path) -> None:
    with closing(open_slide(write_generic(tmp_path / "slide.tif", PICTURE, 0.25))) as slide:
        places = lay_grid(slide, _everywhere(slide), size_px=50, microns_per_pixel=1.1, stride=0.6, least_tissue=0)
        together = _tiles(slide, places, 50, StreamOptions(batch_size=1000, workers=1))
        alone = _tiles(slide, places, 50, StreamOptions(batch_size=1, workers=3, ahead=9))
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("read", [open_slide, open_openslide])
def test_a_broken_tile_is_named_and_the_others_come(read: Callable[..., Slide], tmp_path: Path) -> None:
    path = write_generic(tmp_path / "slide.tif", PICTURE, 0.5)
    break_tile(path, 14)  # column 2, row 1
    told: dict[int, str] = {}
    with closing(read(path, None)) as slide:
        places = lay_grid(slide, _everywhere(slide), size_px=TILE_PX, microns_per_pixel=0.5, least_tissue=0)
        broken = int(np.flatnonzero((places.left == 2 * TILE_PX) & (places.top == TILE_PX))[0])
        found = list(
            stream_tiles(
                slide, places, TILE_PX, StreamOptions(batch_size=5), lambda row, error: told.__setitem__(row, str(error))
            )
        )
        assert list(told) == [broken]
        assert told[broken].startswith(f"{path}: 128 x 128 pixels at 256, 128 of level 0 can't be read")
        rows = np.concatenate([rows for rows, _ in found])
        np.testing.assert_array_equal(rows, np.delete(np.arange(len(places)), broken))
        np.testing.assert_array_equal(
            np.concatenate([tiles for _, tiles in found]), np.delete(_plain(PICTURE, places, TILE_PX), broken, axis=0)
        )
        with pytest.raises(UnreadableSlideError, match=r"slide\.tif: 128 x 128 pixels at 256, 128"):
            list(stream_tiles(slide, places, TILE_PX))


def test_no_more_is_read_ahead_than_was_allowed(tmp_path: Path) -> None:
    with closing(open_slide(write_generic(tmp_path / "slide.tif", PICTURE, 0.5))) as slide:
        places = lay_grid(slide, _everywhere(slide), size_px=64, microns_per_pixel=0.5, least_tissue=0)
        counted = _Counting(slide)
        stream = stream_tiles(counted, places, 64, StreamOptions(batch_size=4, workers=2, ahead=3))
        next(stream)
        assert counted.n_px <= 5 * 4 * 64 * 64  # of `ahead` and one more, and the one that was given
        stream.close()
        assert counted.n_px <= 5 * 4 * 64 * 64


class _Counting:
    """A slide that counts the pixels that are read of it."""

    def __init__(self, slide: Slide) -> None:
        self._slide, self.n_px = slide, 0
        self.path, self.size_px = slide.path, slide.size_px
        self.downsamples, self.microns_per_pixel = slide.downsamples, slide.microns_per_pixel

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        self.n_px += width * height
        return self._slide.read(level, left, top, width, height)

    def close(self) -> None: ...


def test_no_places_no_tiles(tmp_path: Path) -> None:
    none = np.empty(0, np.int64)
    with closing(open_slide(write_generic(tmp_path / "slide.tif", PICTURE, 0.5))) as slide:
        assert list(stream_tiles(slide, Places(none, none, 64, 64.0), 64)) == []


@pytest.mark.parametrize(("name", "microns"), [("cmu-1-small-region.svs", None), ("polyp_section/section1.tif", 0.25)])
def test_real_tiles_are_those_of_the_plain_way(name: str, microns: float | None, real_data: Path) -> None:
    import openslide

    with closing(open_slide(real_data / name, microns)) as slide:
        places = lay_grid(slide, find_tissue(slide, TissueOptions()), size_px=224, microns_per_pixel=0.5)
        some = np.linspace(0, len(places) - 1, 40).astype(int)
        places = replace(places, left=places.left[some], top=places.top[some])
        tiles = _tiles(slide, places, 224)
    plain = openslide.OpenSlide(real_data / name)
    edge = places.edge_px
    expected = np.stack(
        [
            np.asarray(plain.read_region((int(x), int(y)), 0, (edge, edge)).convert("RGB").resize((224, 224)))
            for x, y in zip(places.left, places.top, strict=True)
        ]
    )
    difference = np.abs(tiles.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001
