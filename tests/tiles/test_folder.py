from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo_mlflow.errors import RequestError, TileFormatError
from histo_mlflow.tiles.folder import read_folder
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES, TileSet


@pytest.fixture
def folder(work: Path, tiny_tiles: TileSet) -> Path:
    """Class folders with the first 18 tiny tiles as png and tif."""
    for k, (image, label) in enumerate(zip(tiny_tiles.images[:18], tiny_tiles.labels, strict=False)):
        target = work / "tiles" / COLORECTAL_CLASSES[label]
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(target / f"{k:02d}.{'png' if k < 9 else 'TIF'}", format="PNG" if k < 9 else "TIFF")
    return work / "tiles"


def test_reads_mixed_files_ordered_by_class_and_name(folder: Path, tiny_tiles: TileSet) -> None:
    tiles = read_folder(folder)
    order = np.argsort(tiny_tiles.labels[:18], kind="stable")
    np.testing.assert_array_equal(tiles.images, tiny_tiles.images[:18][order])
    np.testing.assert_array_equal(tiles.labels, np.repeat(np.arange(9), 2))
    assert tiles.classes == COLORECTAL_CLASSES


def test_some_of_the_nine_keep_their_labels(folder: Path) -> None:
    for name in COLORECTAL_CLASSES[:7]:
        for file in (folder / name).iterdir():
            file.unlink()
        (folder / name).rmdir()
    assert set(read_folder(folder).labels.tolist()) == {7, 8}


def test_another_class_set_is_taken_in_alphabetical_order(folder: Path) -> None:
    for k, name in enumerate(COLORECTAL_CLASSES):
        (folder / name).rename(folder / f"kind{k}")
    assert read_folder(folder).classes == tuple(f"kind{k}" for k in range(9))


def test_a_stranger_among_the_nine_is_refused(folder: Path) -> None:
    (folder / "TUM").rename(folder / "TUMOUR")
    with pytest.raises(RequestError, match="mixes the nine tissue classes with TUMOUR"):
        read_folder(folder)


def test_empty_folder(work: Path) -> None:
    (work / "none").mkdir()
    with pytest.raises(RequestError, match="holds no tiles"):
        read_folder(work / "none")


def test_mixed_sizes_need_an_image_size(folder: Path) -> None:
    Image.new("RGB", (40, 40)).save(folder / "ADI" / "large.png")
    with pytest.raises(TileFormatError, match=r"mixed sizes.*32 px.*large\.png 40 px.*image_size"):
        read_folder(folder)
    assert read_folder(folder, image_size=36).images.shape == (19, 36, 36, 3)


def test_changed_file_is_read_anew(folder: Path) -> None:
    before = read_folder(folder).fingerprint
    Image.new("RGB", (32, 32), (9, 9, 9)).save(folder / "ADI" / "00.png")
    assert read_folder(folder).fingerprint != before


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.new("L", (32, 32)), "not a colour image"),
        (Image.new("I;16", (32, 32)), "not a colour image"),
        (Image.new("RGBA", (32, 32), (1, 2, 3, 128)), "transparent"),
        (Image.new("RGB", (32, 30)), "must be square"),
    ],
)
def test_unfit_image_is_refused_by_name(folder: Path, image: Image.Image, reason: str) -> None:
    image.save(folder / "ADI" / "odd.png")
    with pytest.raises(TileFormatError, match=rf"odd\.png.*{reason}"):
        read_folder(folder)


def test_lossless_conversions_are_made(folder: Path) -> None:
    colour = (10, 200, 30)
    Image.new("RGBA", (32, 32), (*colour, 255)).save(folder / "ADI" / "0a.png")
    Image.new("RGB", (32, 32), colour).convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "ADI" / "0b.png")
    images = read_folder(folder).images
    assert (images[2] == colour).all()
    assert (images[3] == colour).all()


def test_broken_file_is_named(folder: Path) -> None:
    whole = (folder / "ADI" / "00.png").read_bytes()
    (folder / "ADI" / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TileFormatError, match=r"half\.png can't be decoded"):
        read_folder(folder)


def test_real_tiles_of_three_formats(work: Path, real_data: Path) -> None:
    tiles = read_folder(real_data / "crc_val_he_7k_47")
    assert tiles.images.shape == (47, 224, 224, 3)
    assert tiles.class_counts() == dict(zip(COLORECTAL_CLASSES, (4, 2, 4, 4, 4, 8, 5, 8, 8), strict=True))
