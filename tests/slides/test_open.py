"""The same slide in every container gives the same pixels and scale; what is no slide is refused by name."""

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from wsidicom import WsiDicom

from histo_mlflow.errors import SourceNotFoundError, UnreadableSlideError
from histo_mlflow.slides.open import open_slide
from histo_mlflow.slides.openslide_reader import OpenSlideSlide, open_openslide
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.tiff_reader import TiffSlide
from tests.slide_writers import (
    TILE_PX,
    WRITERS,
    Pixels,
    break_tile,
    draw_picture,
    levels_of,
    write_dicom,
    write_generic,
    write_ome,
    write_svs,
)  # fmt: skip

PICTURE = draw_picture()
HEIGHT, WIDTH = PICTURE.shape[:2]
Write = Callable[[Path, Pixels, float | None], Path]


def _written(container: str, folder: Path, microns: float | None = 0.5) -> Path:
    name, write = WRITERS[container]
    return write(folder / name, PICTURE, microns)


@pytest.mark.parametrize("container", WRITERS)
def test_same_pixels_and_scale_in_every_container(container: str, tmp_path: Path) -> None:
    path = _written(container, tmp_path)
    with closing(open_slide(path)) as slide:
        assert slide.path == path
        assert slide.size_px == (WIDTH, HEIGHT)
        assert slide.microns_per_pixel == pytest.approx(0.5)
        assert slide.downsamples == (1.0, 4.0)
        for level, pixels in enumerate(levels_of(PICTURE)):
            np.testing.assert_array_equal(slide.read(level, 0, 0, pixels.shape[1], pixels.shape[0]), pixels)
            np.testing.assert_array_equal(slide.read(level, 101, 37, 190, 133), pixels[37:170, 101:291])


@pytest.mark.parametrize("container", WRITERS)
def test_white_beyond_the_ends(container: str, tmp_path: Path) -> None:
    with closing(open_slide(_written(container, tmp_path))) as slide:
        corner = slide.read(0, WIDTH - 10, HEIGHT - 20, 30, 50)
        np.testing.assert_array_equal(corner[:20, :10], PICTURE[-20:, -10:])
        assert (corner[20:] == 255).all()
        assert (corner[:, 10:] == 255).all()
        before = slide.read(0, -7, -5, 20, 20)
        np.testing.assert_array_equal(before[5:, 7:], PICTURE[:15, :13])
        assert (before[:5] == 255).all()
        assert (slide.read(0, WIDTH + 1, 0, 5, 4) == 255).all()


@pytest.mark.parametrize("container", WRITERS)
def test_scale_that_is_not_stated_is_none_and_a_given_one_counts(container: str, tmp_path: Path) -> None:
    path = _written(container, tmp_path, None)
    with closing(open_slide(path)) as slide:
        assert slide.microns_per_pixel is None
    with closing(open_slide(path, 0.23)) as slide:
        assert slide.microns_per_pixel == 0.23


@pytest.mark.parametrize("container", WRITERS)
def test_given_scale_goes_before_the_files(container: str, tmp_path: Path) -> None:
    with closing(open_slide(_written(container, tmp_path), 0.25)) as slide:
        assert slide.microns_per_pixel == 0.25


@pytest.mark.parametrize(
    "resolution",
    [
        {"resolution": (72, 72), "resolutionunit": "INCH"},
        {"resolution": (96, 96), "resolutionunit": "INCH"},
        {"resolution": (0, 0), "resolutionunit": "CENTIMETER"},
        {"resolution": (20_000, 20_000), "resolutionunit": "NONE"},
    ],
)
def test_scale_that_no_microscope_has_is_not_believed(resolution: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, PICTURE, tile=(TILE_PX, TILE_PX), photometric="rgb", metadata=None, **resolution)  # type: ignore[arg-type]
    with closing(open_slide(path)) as slide:
        assert slide.microns_per_pixel is None
    with closing(open_openslide(path, None)) as slide:
        assert slide.microns_per_pixel is None


@pytest.mark.parametrize("text", ["nan", "0", "-0.5", "inf", "353", "unknown"])
def test_aperio_scale_that_can_not_be(text: str, tmp_path: Path) -> None:
    about = f"Aperio Image Library v12\r\n{WIDTH}x{HEIGHT} (128x128) Q=90|AppMag = 20|MPP = {text}"
    path = tmp_path / "slide.svs"
    tifffile.imwrite(path, PICTURE, tile=(TILE_PX, TILE_PX), photometric="rgb", metadata=None, description=about)
    with closing(open_slide(path)) as slide:
        assert slide.microns_per_pixel is None


@pytest.mark.parametrize("read", [open_slide, open_openslide])
def test_pixels_that_are_not_square_are_refused_unless_a_scale_is_given(read: Callable[..., Slide], tmp_path: Path) -> None:
    path = tmp_path / "wide.tif"
    tifffile.imwrite(
        path, PICTURE, tile=(TILE_PX, TILE_PX), photometric="rgb", metadata=None, resolution=(20_000, 21_000),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    with pytest.raises(UnreadableSlideError, match=r"wide\.tif: its pixels are not square \(0\.5 by 0\.47619 micrometres\)"):
        read(path, None)
    with closing(read(path, 0.5)) as slide:
        assert slide.microns_per_pixel == 0.5


def test_a_dicom_file_brings_the_others_of_its_series(tmp_path: Path) -> None:
    folder = _written("dicom", tmp_path)
    write_dicom(tmp_path / "other", PICTURE[:600], 0.5)
    (tmp_path / "other" / "level-0.dcm").rename(folder / "of another slide.dcm")
    with closing(open_slide(folder / "level-1.dcm")) as slide:
        assert slide.size_px == (WIDTH, HEIGHT)
        assert len(slide.downsamples) == 2
    with pytest.raises(SourceNotFoundError, match="holds 2 DICOM slides; name one of them"):
        open_slide(folder)


def test_what_wsidicom_writes_itself(tmp_path: Path) -> None:
    with WsiDicom.open(_written("dicom", tmp_path)) as wsi:
        wsi.save(tmp_path / "saved")
    with closing(open_slide(tmp_path / "saved")) as slide:
        assert slide.size_px == (WIDTH, HEIGHT)
        assert slide.microns_per_pixel == pytest.approx(0.5)
        np.testing.assert_array_equal(slide.read(0, 0, 0, WIDTH, HEIGHT), PICTURE)


def test_jpeg_gives_the_same_pixels_as_openslide(tmp_path: Path) -> None:
    path = write_generic(tmp_path / "slide.tif", PICTURE, 0.5, compression="jpeg")
    with closing(open_slide(path)) as ours, closing(open_openslide(path, None)) as theirs:
        assert isinstance(ours, TiffSlide)
        assert ours.microns_per_pixel == pytest.approx(theirs.microns_per_pixel)
        assert ours.downsamples == theirs.downsamples
        for level in range(2):
            np.testing.assert_array_equal(ours.read(level, 11, 7, 300, 200), theirs.read(level, 11, 7, 300, 200))


def test_strips_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "strips.tif"
    tifffile.imwrite(path, PICTURE, photometric="rgb", rowsperstrip=37, metadata=None)
    with closing(open_slide(path)) as slide:
        np.testing.assert_array_equal(slide.read(0, 100, 200, 300, 400), PICTURE[200:600, 100:400])


@pytest.mark.parametrize("read", [open_slide, open_openslide])
def test_what_was_never_scanned_is_white(read: Callable[..., Slide], tmp_path: Path) -> None:
    rows, columns = -(-HEIGHT // TILE_PX), -(-WIDTH // TILE_PX)
    whole = np.pad(PICTURE, ((0, rows * TILE_PX - HEIGHT), (0, columns * TILE_PX - WIDTH), (0, 0)))
    tiles = [
        None if (row, column) == (2, 3) else whole[row * TILE_PX :, column * TILE_PX :][:TILE_PX, :TILE_PX].copy()
        for row in range(rows)
        for column in range(columns)
    ]
    path = tmp_path / "sparse.tif"
    tifffile.imwrite(
        path, iter(tiles), shape=PICTURE.shape, dtype=np.uint8, tile=(TILE_PX, TILE_PX), photometric="rgb", compression="zlib",
        metadata=None,
    )  # fmt: skip
    with closing(read(path, None)) as slide:
        assert (slide.read(0, 3 * TILE_PX, 2 * TILE_PX, TILE_PX, TILE_PX) == 255).all()
        np.testing.assert_array_equal(slide.read(0, 4 * TILE_PX, 2 * TILE_PX, 50, 60), PICTURE[256:316, 512:562])


def test_transparent_is_white(tmp_path: Path) -> None:
    opacity = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    opacity[:300], opacity[300:400] = 0, 128
    path = tmp_path / "clear.tif"
    tifffile.imwrite(
        path, np.concatenate([PICTURE, opacity], axis=2), tile=(TILE_PX, TILE_PX), photometric="rgb",
        extrasamples=["unassalpha"], metadata=None,
    )  # fmt: skip
    with closing(open_slide(path)) as slide:
        assert (slide.read(0, 0, 0, WIDTH, 300) == 255).all()
        half = slide.read(0, 200, 300, 100, 100).astype(float)
        np.testing.assert_allclose(half, PICTURE[300:400, 200:300] * (128 / 255) + 127, atol=1)
        np.testing.assert_array_equal(slide.read(0, 0, 400, WIDTH, 100), PICTURE[400:500])


@pytest.mark.parametrize("write", [write_generic, write_svs, write_ome])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.98])
def test_a_file_that_is_cut_short(write: Write, kept: float, tmp_path: Path) -> None:
    path = write(tmp_path / "cut.tif", PICTURE, 0.5)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(UnreadableSlideError, match=r"cut\.tif"):
        open_slide(path).read(0, 0, 0, WIDTH, HEIGHT)


def test_dicom_that_is_cut_short(tmp_path: Path) -> None:
    file = _written("dicom", tmp_path) / "level-0.dcm"
    file.write_bytes(file.read_bytes()[:900_000])
    with pytest.raises(UnreadableSlideError, match=r"slide"):
        open_slide(tmp_path / "slide").read(0, 0, 0, WIDTH, HEIGHT)


_NO_SLIDES = [b"", b"no slide", b"II*\0" + b"\0" * 200, b"\x89PNG\r\n\x1a\n", b"\0" * 128 + b"DICM" + b"x" * 99]


@pytest.mark.parametrize("content", _NO_SLIDES)
@pytest.mark.parametrize("name", ["slide.svs", "slide.tif", "slide.ndpi", "slide.mrxs", "slide.dcm"])
def test_what_is_no_slide(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableSlideError, match=name):
        open_slide(tmp_path / name)


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (PICTURE.astype(np.uint16), {"photometric": "rgb"}),
        (PICTURE[..., 0], {"photometric": "minisblack"}),
        (np.moveaxis(PICTURE, 2, 0), {"photometric": "minisblack", "metadata": {"axes": "CYX"}}),
    ],
)
def test_ome_that_is_not_rgb(pixels: np.ndarray, kind: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "fluorescence.ome.tif"
    tifffile.imwrite(path, pixels, tile=(TILE_PX, TILE_PX), **kind)  # type: ignore[arg-type]
    with pytest.raises(UnreadableSlideError, match=r"fluorescence\.ome\.tif .*RGB of 8 bits"):
        open_slide(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"gone\.svs: no such slide"):
        open_slide(tmp_path / "gone.svs")
    with pytest.raises(SourceNotFoundError, match="is a folder without a DICOM slide"):
        open_slide(tmp_path)


@pytest.mark.parametrize("read", [open_slide, open_openslide])
def test_a_tile_that_is_broken_costs_no_other(read: Callable[..., Slide], tmp_path: Path) -> None:
    path = write_generic(tmp_path / "slide.tif", PICTURE, 0.5)
    break_tile(path, 14)  # of 12 columns: row 1, column 2
    with closing(read(path, None)) as slide:
        for _ in range(2):
            with pytest.raises(UnreadableSlideError, match=r"slide\.tif: 9 x 9 pixels at 300, 200 of level 0 can't be read"):
                slide.read(0, 300, 200, 9, 9)
            np.testing.assert_array_equal(slide.read(0, 600, 200, 90, 90), PICTURE[200:290, 600:690])


@pytest.mark.parametrize("read", [open_slide, open_openslide])
def test_many_threads_read_what_one_reads(read: Callable[..., Slide], tmp_path: Path) -> None:
    path = write_generic(tmp_path / "slide.tif", PICTURE, 0.5)
    break_tile(path, 0)
    wrong: list[object] = []
    with closing(read(path, None)) as slide:

        def work(seed: int) -> None:
            generator = np.random.default_rng(seed)
            for _ in range(30):
                left, top = (int(generator.integers(TILE_PX, limit - 100)) for limit in (WIDTH, HEIGHT))
                if not np.array_equal(slide.read(0, left, top, 100, 100), PICTURE[top : top + 100, left : left + 100]):
                    wrong.append((left, top))
                with pytest.raises(UnreadableSlideError):
                    slide.read(0, 0, 0, 20, 20)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_real_slides_give_openslides_pixels(real_data: Path) -> None:
    for name in ("cmu-1-small-region.svs", "polyp_section/section1.tif"):
        with closing(open_slide(real_data / name)) as ours, closing(open_openslide(real_data / name, None)) as theirs:
            assert isinstance(ours, TiffSlide)
            assert isinstance(theirs, OpenSlideSlide)
            assert ours.size_px == theirs.size_px
            assert ours.microns_per_pixel == theirs.microns_per_pixel
            for level, downsample in enumerate(ours.downsamples):
                box = (int(1000 / downsample), int(1500 / downsample), 500, 400)
                np.testing.assert_array_equal(ours.read(level, *box), theirs.read(level, *box))


def test_real_dicom_is_read_or_refused_by_name(real_data: Path) -> None:
    outcomes = {}
    for path in sorted((real_data / "small_dicom").glob("*.dcm")):
        try:
            with closing(open_slide(path)) as slide:
                assert slide.microns_per_pixel == pytest.approx(0.499)
                outcomes[path.name] = str(slide.read(0, 0, 0, *slide.size_px).shape)
                if openslide.OpenSlide.detect_format(path) and "jpegls" not in path.name:
                    with closing(open_openslide(path, None)) as theirs:
                        np.testing.assert_array_equal(slide.read(0, 0, 0, 50, 50), theirs.read(0, 0, 0, 50, 50))
        except UnreadableSlideError as error:
            outcomes[path.name] = "refused" if path.name in str(error) else str(error)
    read = {name for name, outcome in outcomes.items() if outcome == "(50, 50, 3)"}
    assert read == {f"sm_image{part}.dcm" for part in ("", "_control", "_dots", "_jpegls", "_jpegls_nobot", "_numbers")}
    assert {name for name, outcome in outcomes.items() if outcome == "refused"} == {
        "sm_annotations.dcm", "sm_image_grayscale.dcm", "sm_image_grayscale_reversed.dcm", "small_dicom.dcm",
    }  # fmt: skip
