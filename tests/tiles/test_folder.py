import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo_mlflow.errors import RequestError, TileFormatError
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES, TileSet
from tests.image_writers import write_16_bit_rgb


@pytest.fixture
def folder(work: Path, tiny_tiles: TileSet) -> Path:
    """Class folders with the first 18 tiny tiles as png and tif."""
    for k, (image, label) in enumerate(zip(tiny_tiles.images[:18], tiny_tiles.labels, strict=False)):
        target = work / "tiles" / COLORECTAL_CLASSES[label]
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(target / f"{k:02d}.{'png' if k < 9 else 'TIF'}", format="PNG" if k < 9 else "TIFF")
    return work / "tiles"


def test_reads_mixed_files_ordered_by_class_and_name(folder: Path, tiny_tiles: TileSet) -> None:
    tiles = open_tiles(folder)
    order = np.argsort(tiny_tiles.labels[:18], kind="stable")
    np.testing.assert_array_equal(tiles.images, tiny_tiles.images[:18][order])
    np.testing.assert_array_equal(tiles.labels, np.repeat(np.arange(9), 2))
    assert tiles.classes == COLORECTAL_CLASSES


def test_some_of_the_nine_keep_their_labels(folder: Path) -> None:
    for name in COLORECTAL_CLASSES[:7]:
        for file in (folder / name).iterdir():
            file.unlink()
        (folder / name).rmdir()
    assert set(open_tiles(folder).labels.tolist()) == {7, 8}


def test_another_class_set_is_taken_in_alphabetical_order(folder: Path) -> None:
    for k, name in enumerate(COLORECTAL_CLASSES):
        (folder / name).rename(folder / f"kind{k}")
    assert open_tiles(folder).classes == tuple(f"kind{k}" for k in range(9))


def test_a_stranger_among_the_nine_is_refused(folder: Path) -> None:
    (folder / "TUM").rename(folder / "TUMOUR")
    with pytest.raises(RequestError, match="mixes the nine tissue classes with TUMOUR"):
        open_tiles(folder)


def test_empty_folder(work: Path) -> None:
    (work / "none").mkdir()
    with pytest.raises(RequestError, match="holds no tiles"):
        open_tiles(work / "none")


def test_mixed_sizes_need_an_image_size(folder: Path) -> None:
    Image.new("RGB", (40, 40)).save(folder / "ADI" / "large.png")
    with pytest.raises(TileFormatError, match=r"mixed sizes.*32 px.*large\.png 40 px.*image_size"):
        open_tiles(folder)
    assert open_tiles(folder, image_size=36).images.shape == (19, 36, 36, 3)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.new("L", (32, 32)), "not a colour image"),
        (Image.new("I;16", (32, 32)), "not a colour image"),
        (Image.new("RGBA", (32, 32), (1, 2, 3, 128)), "transparent"),
        (Image.new("RGB", (32, 30)), "must be square"),
        (Image.new("RGB", (1, 1)), "has 1 x 1 px"),
    ],
)
def test_unfit_image_is_refused_by_name(folder: Path, image: Image.Image, reason: str) -> None:
    image.save(folder / "ADI" / "odd.png")
    with pytest.raises(TileFormatError, match=rf"odd\.png.*{reason}"):
        open_tiles(folder)


def test_lossless_conversions_are_made(folder: Path) -> None:
    colour = (10, 200, 30)
    Image.new("RGBA", (32, 32), (*colour, 255)).save(folder / "ADI" / "0a.png")
    Image.new("RGB", (32, 32), colour).convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "ADI" / "0b.png")
    images = open_tiles(folder).images
    assert (images[2] == colour).all()
    assert (images[3] == colour).all()


def _save(file: Path, **options: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (200, 100, 150)).save(file, **options)


@pytest.mark.parametrize(
    ("stranger", "reason"),
    [
        ("benign/b.bmp", r"benign holds files that can't be read as tiles \(1 \.bmp\)"),
        ("normal/a.bmp", r"normal holds files that can't be read as tiles \(1 \.bmp\)"),
        ("benign/p1/a.png", r"p1 lies in a class folder and holds images itself \(1 images.*benign.*tiles#nested"),
        ("insitu/p1/deep/a.png", r"deep lies in a class folder and holds images.*insitu.*tiles#nested"),
    ],
)
def test_what_would_be_passed_over_is_refused_by_name(work: Path, stranger: str, reason: str) -> None:
    for name in ("benign/a.png", "malignant/a.png", stranger):
        _save(work / "tiles" / name)
    with pytest.raises(RequestError, match=reason):
        open_tiles(work / "tiles")


def test_a_class_folder_with_tables_alone_is_refused(work: Path) -> None:
    for name in ("benign/a.png", "malignant/a.png", "normal/a.png"):
        _save(work / "tiles" / name)
    (work / "tiles" / "normal" / "a.png").rename(work / "tiles" / "normal" / "tiles.csv")
    with pytest.raises(RequestError, match=r"normal holds files that can't be read as tiles \(1 \.csv\)"):
        open_tiles(work / "tiles")


def test_nested_tiles_are_read_when_asked_for(work: Path) -> None:
    for name in ("benign/a.png", "malignant/a.png", "malignant/slide_17/a.png", "insitu/p1/a.png", "insitu/p2/deep/a.png"):
        _save(work / "tiles" / name)
    tiles = open_tiles(str(work / "tiles#nested"))
    assert tiles.class_counts() == {"benign": 1, "insitu": 2, "malignant": 2}


def test_what_lies_beside_the_classes_is_named_and_what_servers_and_people_leave_is_not(work: Path) -> None:
    for name in ("a/1.png", "b/1.png", "overview.png", "a/@eaDir/1.png", "a/.ipynb_checkpoints/1.png", "#recycle/1.png"):
        _save(work / "tiles" / name)
    (work / "tiles" / "empty").mkdir()
    (work / "tiles" / "a" / "notes.txt").write_text("")
    (work / "tiles" / "a" / "up").symlink_to(work / "tiles" / "a")
    tiles = open_tiles(work / "tiles")
    assert tiles.class_counts() == {"a": 1, "b": 1}
    assert [note.partition(" of ")[0] for note in tiles.passed_over] == ["1 image(s) beside the class folders", "class folders"]


def test_a_folder_in_the_other_unicode_form_is_the_same_class(work: Path) -> None:
    for form in ("NFC", "NFD"):
        for name in ("Schleimhäute", "Stroma"):
            _save(work / form / unicodedata.normalize(form, name) / "a.png")
    assert open_tiles(work / "NFD").classes == open_tiles(work / "NFC").classes == ("Schleimhäute", "Stroma")


def test_all_unreadable_tiles_are_named_in_one_go(folder: Path, work: Path) -> None:
    whole = (folder / "ADI" / "00.png").read_bytes()
    for name in ("ADI/half.png", "BACK/half.png", "TUM/half.png"):
        (folder / name).write_bytes(whole[: len(whole) // 2])
    (folder / "TUM" / "text.png").write_text("no image")
    with pytest.raises(TileFormatError, match=r"4 of 22 tiles can't be read: .*half\.png .*unreadable_tiles\.txt"):
        open_tiles(folder)
    listed = (work / "unreadable_tiles.txt").read_text().splitlines()
    assert len(listed) == 4
    assert "text.png is not an image" in listed[3]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_more_than_eight_bits_per_channel_are_refused(folder: Path, suffix: str) -> None:
    write_16_bit_rgb(folder / "ADI" / f"deep.{suffix}")
    with pytest.raises(TileFormatError, match=r"deep\.\w+ has 16 bits per channel; convert it to 8-bit RGB"):
        open_tiles(folder)


def test_real_tiles_of_three_formats(work: Path, real_data: Path) -> None:
    tiles = open_tiles(real_data / "crc_val_he_7k_47")
    assert tiles.images.shape == (47, 224, 224, 3)
    assert tiles.class_counts() == dict(zip(COLORECTAL_CLASSES, (4, 2, 4, 4, 4, 8, 5, 8, 8), strict=True))
