"""Tissue is found, pale or strong; glass, dirt and ink are not; and what a person edits comes back."""

import json
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from PIL import Image

from histo_mlflow.errors import AnnotationError, OptionError, SourceNotFoundError
from histo_mlflow.slides.annotations import IGNORE
from histo_mlflow.slides.open import open_slide
from histo_mlflow.slides.options import INKS, TissueOptions
from histo_mlflow.slides.outlines import filled, outlines_of
from histo_mlflow.slides.overview import read_overview
from histo_mlflow.slides.tissue import Mask, Tissue, find_tissue
from histo_mlflow.slides.tissue_files import read_tissue, write_tissue
from tests.slide_writers import Pixels, write_generic

MICRONS = 0.5


@dataclass(frozen=True)
class _Overview:
    """A slide of which only its picture at 1/16 is known, which is all that tissue is found on."""

    picture: Pixels
    microns_per_pixel: float | None = MICRONS
    path: Path = Path("drawn.svs")
    downsamples: tuple[float, ...] = (1.0, 16.0)

    @property
    def size_px(self) -> tuple[int, int]:
        return self.picture.shape[1] * 16, self.picture.shape[0] * 16

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        assert level == 1
        return self.picture[top : top + height, left : left + width]

    def close(self) -> None: ...


def _dice(one: Mask, other: Mask) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def _disk(shape: tuple[int, int], x: int, y: int, radius: int) -> Mask:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    disk: Mask = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    return disk


def _draw(mask: Mask, *, strength: float = 1.0, noise: float = 2.0, glass: tuple[int, int, int] = (243, 243, 243)) -> Pixels:
    """Return H&E-coloured, grainy tissue on glass."""
    generator = np.random.default_rng(0)
    grain = generator.normal(0, 20, (*mask.shape, 1))
    stained = np.array([190, 110, 170]) + grain
    absorbed = np.where(mask[..., None], (243 - stained) * strength, 0.0)
    picture = (243 - absorbed) / 243 * np.array(glass) + generator.normal(0, noise, (*mask.shape, 3))
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


SHAPE = (300, 400)
PIECES = _disk(SHAPE, 120, 150, 80) | _disk(SHAPE, 310, 140, 60)


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("glass", [(243, 243, 243), (250, 245, 232), (215, 220, 228)])
def test_strong_and_pale_tissue_on_any_glass(strength: float, glass: tuple[int, int, int]) -> None:
    found = find_tissue(_Overview(_draw(PIECES, strength=strength, glass=glass)), TissueOptions())
    assert found.downsample == 16
    assert _dice(found.mask, PIECES) > 0.97


def test_pale_tissue_beside_strong_is_kept() -> None:
    strong, pale = _draw(PIECES), _draw(PIECES, strength=0.2)
    picture = np.concatenate([strong[:, :210], pale[:, 210:]], axis=1)
    assert _dice(find_tissue(_Overview(picture), TissueOptions()).mask, PIECES) > 0.97
    by_otsu = find_tissue(_Overview(picture), TissueOptions(most_saturation=1.0)).mask
    assert _dice(by_otsu[:, 210:], PIECES[:, 210:]) < 0.5


@pytest.mark.parametrize("noise", [0.0, 1.0, 3.0])
def test_a_blank_slide_has_no_tissue(noise: float) -> None:
    blank = _draw(np.zeros(SHAPE, bool), noise=noise, glass=(240, 238, 230))
    assert not find_tissue(_Overview(blank), TissueOptions()).mask.any()
    assert not find_tissue(_Overview(np.full((5, 4, 3), 255, np.uint8)), TissueOptions()).mask.any()


def test_a_slide_full_of_tissue() -> None:
    full = np.ones(SHAPE, bool)
    assert find_tissue(_Overview(_draw(full)), TissueOptions()).mask.mean() > 0.99


@pytest.mark.parametrize(
    ("ink", "colour"),
    [
        ("green", (0, 150, 80)), ("green", (90, 190, 140)), ("blue", (30, 60, 200)), ("blue", (90, 140, 230)),
        ("red", (210, 30, 40)), ("red", (228, 120, 120)), ("black", (25, 22, 24)), ("black", (70, 70, 74)),
    ],
)  # fmt: skip
def test_pen_marks_are_no_tissue(ink: str, colour: tuple[int, int, int]) -> None:
    stroke = np.zeros(SHAPE, np.uint8)
    cv2.polylines(stroke, [np.array([[10, 20], [60, 40], [390, 30]])], isClosed=False, color=1, thickness=12)
    opacity = cv2.GaussianBlur(stroke.astype(np.float32), (0, 0), 1)[..., None]
    picture = _draw(PIECES) * (1 - opacity * (1 - np.array(colour) / 255))
    slide = _Overview(np.rint(picture).astype(np.uint8))
    found = find_tissue(slide, TissueOptions()).mask
    assert _dice(found, PIECES) > 0.97
    assert not found[stroke > 0].any()
    if ink != "black":  # which has no colour in any case
        others = ",".join(each for each in INKS if each != ink)
        assert find_tissue(slide, TissueOptions(ink=others)).mask[stroke > 0].mean() > 0.9


def test_dirt_goes_and_small_tissue_stays_by_their_area() -> None:
    """A pixel of the overview has 64 um2 at 0.5 um, and 16 at 0.25."""
    mask = PIECES | _disk(SHAPE, 230, 250, 8)  # 197 px
    picture = _draw(mask)
    kept = find_tissue(_Overview(picture), TissueOptions()).mask
    assert kept[250, 230]
    assert not find_tissue(_Overview(picture), TissueOptions(smallest_tissue_um2=20_000)).mask[250, 230]
    assert not find_tissue(_Overview(picture, microns_per_pixel=0.25), TissueOptions()).mask[250, 230]
    without_scale = find_tissue(_Overview(picture, microns_per_pixel=None), TissueOptions()).mask
    np.testing.assert_array_equal(without_scale, kept)


def test_small_holes_are_tissue_and_large_ones_are_not() -> None:
    small, large = _disk(SHAPE, 90, 150, 12), _disk(SHAPE, 150, 150, 22)  # 29,000 and 97,000 um2
    found = find_tissue(_Overview(_draw(PIECES & ~small & ~large)), TissueOptions()).mask
    assert found[small].all()
    assert found[large].mean() < 0.1
    assert find_tissue(_Overview(_draw(PIECES & ~small)), TissueOptions(largest_hole_um2=0)).mask[small].mean() < 0.2


def test_the_overview_is_the_mean_of_what_it_covers(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (1112, 1504, 3), dtype=np.uint8)
    with closing(open_slide(write_generic(tmp_path / "slide.tif", picture, MICRONS))) as slide:
        overview, downsample = read_overview(replace(slide, downsamples=(1.0,)))  # of level 0 alone
        assert downsample == 16
        assert overview.shape == (70, 94, 3)
        means = picture[: 69 * 16].reshape(69, 16, 94, 16, 3).mean((1, 3))
        np.testing.assert_allclose(overview[:69], means, atol=1)
        by_level, _ = read_overview(slide)
        np.testing.assert_allclose(by_level[:69], means, atol=1.5)


def test_tissue_of_the_polyp_agrees_with_its_mask(real_data: Path) -> None:
    with closing(open_slide(real_data / "polyp_section/section1.tif", 0.25)) as slide:
        found = find_tissue(slide, TissueOptions())
        picture, _ = read_overview(slide)
        without_scale = find_tissue(replace(slide, microns_per_pixel=None), TissueOptions())
    drawn = np.asarray(Image.open(real_data / "polyp_section/section1_tissue_mask_16x.png")) > 0
    assert _dice(found.mask, drawn) >= 0.96
    assert _dice(without_scale.mask, drawn) >= 0.95
    hue, saturation, _ = np.moveaxis(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV), 2, 0)
    green = (hue > 40) & (hue < 90) & (saturation > 60)
    assert green.sum() > 500
    assert found.mask[green].mean() < 0.1


def test_tissue_of_another_organ_and_of_an_overview(real_data: Path) -> None:
    with closing(open_slide(real_data / "cmu-1-small-region.svs")) as slide:
        found = find_tissue(slide, TissueOptions()).mask
    assert 0.35 < found.mean() < 0.45
    assert found[100, 60]
    assert not found[:60, :40].any()
    overview = np.asarray(Image.open(real_data / "polyp_section/whole_slide_overview_64x.png").convert("RGB"))
    sections = find_tissue(replace(_Overview(overview), microns_per_pixel=1.0), TissueOptions()).mask
    assert 0.15 < sections.mean() < 0.35


@pytest.mark.parametrize("ending", [".png", ".geojson"])
def test_tissue_comes_back_from_its_file(ending: str, tmp_path: Path) -> None:
    slide = _Overview(_draw(PIECES))
    found = find_tissue(slide, TissueOptions())
    path = tmp_path / f"tissue{ending}"
    write_tissue(found, slide, path)
    back = read_tissue(path, slide)
    assert back.downsample == found.downsample
    assert _dice(back.mask, found.mask) > (0.9999 if ending == ".png" else 0.995)
    write_tissue(Tissue(np.zeros_like(found.mask), 16.0), slide, path)
    assert not read_tissue(path, slide).mask.any()


def test_regions_as_qupath_takes_them(tmp_path: Path) -> None:
    slide = _Overview(_draw(PIECES & ~_disk(SHAPE, 120, 150, 40)))
    write_tissue(find_tissue(slide, TissueOptions()), slide, tmp_path / "tissue.geojson")
    features = json.loads((tmp_path / "tissue.geojson").read_text())["features"]
    assert len(features) == 2
    assert features[0]["properties"]["classification"] == {"name": "Tissue", "color": [0, 114, 178]}
    shapes = [shapely.from_geojson(json.dumps(feature["geometry"])) for feature in features]
    assert all(shape.is_valid for shape in shapes)
    assert sorted(len(shape.interiors) for shape in shapes) == [0, 1]
    bounds = shapely.total_bounds(shapes)
    assert (bounds[:2] >= 0).all()
    assert (bounds[2:] <= slide.size_px).all()


def test_regions_that_somebody_drew(tmp_path: Path) -> None:
    """Of any class or none, several at once, with holes; what QuPath calls Ignore* is cut out."""
    ring = [[800, 800], [2400, 800], [2400, 2400], [800, 2400], [800, 800]]
    hole = [[1200, 1200], [1200, 1600], [1600, 1600], [1600, 1200], [1200, 1200]]
    far = [[4000, 800], [4800, 800], [4800, 1600], [4000, 1600], [4000, 800]]
    out = [[800, 2000], [2400, 2000], [2400, 2400], [800, 2400], [800, 2000]]

    def feature(kind: str, coordinates: object, name: str | None) -> dict[str, object]:
        named = {} if name is None else {"classification": {"name": name, "color": [9, 9, 9]}}
        return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": named}

    features = [
        feature("Polygon", [ring, hole], None),
        feature("MultiPolygon", [[far]], "Tumour"),
        feature("Polygon", [out], IGNORE),
    ]
    path = tmp_path / "drawn.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    expected = np.zeros(SHAPE, bool)
    expected[50:125, 50:150] = True
    expected[75:100, 75:100] = False
    expected[50:100, 250:300] = True
    np.testing.assert_array_equal(read_tissue(path, _Overview(_draw(PIECES))).mask, expected)


@pytest.mark.parametrize("factor", [0.31, 1.0, 2.5])
def test_a_mask_of_any_scale(factor: float, tmp_path: Path) -> None:
    slide = _Overview(_draw(PIECES))
    size = (round(SHAPE[1] * factor), round(SHAPE[0] * factor))
    Image.fromarray(PIECES).convert("L").resize(size, Image.Resampling.NEAREST).save(tmp_path / "mask.png")
    read = read_tissue(tmp_path / "mask.png", slide)
    assert read.downsample == pytest.approx(slide.size_px[0] / size[0])
    assert read.area_mm2(MICRONS) == pytest.approx(Tissue(PIECES, 16.0).area_mm2(MICRONS), rel=0.02)


def test_files_that_are_no_tissue_of_this_slide(tmp_path: Path) -> None:
    slide = _Overview(_draw(PIECES))
    with pytest.raises(SourceNotFoundError, match=r"gone\.png: no such file"):
        read_tissue(tmp_path / "gone.png", slide)
    Image.new("L", (300, 400)).save(tmp_path / "turned.png")
    with pytest.raises(OptionError, match=r"turned\.png has 300 x 400 px, and drawn\.svs 6400 x 4800, which is another shape"):
        read_tissue(tmp_path / "turned.png", slide)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(OptionError, match=r"broken\.png can't be read as a picture"):
        read_tissue(tmp_path / "broken.png", slide)
    (tmp_path / "mask.bmp").write_bytes(b"BM")
    with pytest.raises(OptionError, match="neither a mask"):
        read_tissue(tmp_path / "mask.bmp", slide)
    beside = {"type": "Polygon", "coordinates": [[[9000, 9000], [9900, 9000], [9900, 9900], [9000, 9000]]]}
    (tmp_path / "beside.geojson").write_text(json.dumps({"type": "Feature", "geometry": beside, "properties": {}}))
    with pytest.raises(AnnotationError, match=r"lie beside drawn\.svs"):
        read_tissue(tmp_path / "beside.geojson", slide)


def test_outlines_go_there_and_back() -> None:
    generator = np.random.default_rng(0)
    mask = cv2.GaussianBlur(generator.normal(0, 1, (200, 260)), (0, 0), 6) > 0
    pieces = outlines_of(mask, 7.3, (int(260 * 7.3), int(200 * 7.3)))
    assert all(piece.is_valid for piece in pieces)
    assert _dice(filled(shapely.MultiPolygon(pieces), mask.shape, 7.3), mask) > 0.98


def test_filled_takes_pixels_by_their_centres() -> None:
    triangle = shapely.Polygon([(0, 0), (80, 0), (0, 80)])
    mask = filled(triangle, (8, 8), 10.0)
    rows, columns = np.mgrid[:8, :8]
    clear = columns + rows != 7  # on the line itself either is right
    np.testing.assert_array_equal(mask[clear], (columns + rows < 7)[clear])


def test_options_say_what_is_wrong() -> None:
    with pytest.raises(OptionError, match=r"least_saturation=0\.2 is above most_saturation=0\.1"):
        TissueOptions(least_saturation=0.2, most_saturation=0.1)
    with pytest.raises(OptionError, match="'violet' is none of green, blue, red, black"):
        TissueOptions(ink="green,violet")
    assert TissueOptions(ink="none").inks == ()
