"""What holds for every form in which tiles may come. A new source adds its form to FORMS."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo_mlflow.errors import RequestError
from histo_mlflow.tiles.fingerprint import fingerprint_of
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.tile_set import TileSet


def _save_images(tiles: TileSet, folder: Path) -> None:
    for k, (image, label) in enumerate(zip(tiles.images, tiles.labels, strict=True)):
        file = folder / tiles.classes[label] / "slide" / f"{k:02d}.png"
        file = file if folder.name == "nested" else file.parent.parent / file.name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)


def _stored(tiles: TileSet) -> str:
    np.savez("stored.npz", data=tiles.images, labels=tiles.labels, groups=tiles.groups)
    return "stored.npz"


def _compressed(tiles: TileSet) -> str:
    np.savez_compressed("compressed.npz", data=tiles.images, labels=tiles.labels, groups=tiles.groups)
    return "compressed.npz"


def _medmnist(tiles: TileSet) -> str:
    np.savez("medmnist.npz", val_images=tiles.images, val_labels=tiles.labels[:, None])
    return "medmnist.npz#val"


def _folder(tiles: TileSet) -> str:
    _save_images(tiles, Path("folder"))
    return "folder"


def _nested(tiles: TileSet) -> str:
    _save_images(tiles, Path("nested"))
    return "nested#nested"


FORMS: dict[str, Callable[[TileSet], str]] = {
    form.__name__.removeprefix("_"): form for form in (_stored, _compressed, _medmnist, _folder, _nested)
}
"""Each writes tiles into the working folder and returns their address."""
WITH_GROUPS = ("stored", "compressed")

each_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def tiles(work: Path, tiny_tiles: TileSet) -> TileSet:
    """18 tiles in the order that a folder gives them, in groups of two."""
    rows = np.argsort(tiny_tiles.labels[:18], kind="stable")
    images, labels = tiny_tiles.images[rows], tiny_tiles.labels[rows]
    groups = (np.arange(18) // 2).astype(str)
    return replace(tiny_tiles, images=images, labels=labels, groups=groups, fingerprint=fingerprint_of(images, labels))


@pytest.mark.parametrize("form", [*FORMS, "demo"])
def test_a_set_is_what_training_takes_it_for(tiles: TileSet, form: str) -> None:
    found = open_tiles("demo" if form == "demo" else FORMS[form](tiles))
    assert found.images.dtype == np.uint8
    assert found.images.shape == (len(found), found.tile_size_px, found.tile_size_px, 3)
    assert not found.images.flags.writeable
    assert isinstance(found.images, np.memmap) == (form != "demo")
    assert found.labels.dtype == np.int64
    assert set(found.labels.tolist()) <= set(range(len(found.classes)))
    assert found.fingerprint == fingerprint_of(np.array(found.images), found.labels)
    assert found.source
    assert found.is_synthetic == (form == "demo")
    assert found.passed_over == ()


@each_form
def test_the_same_tiles_are_read_with_the_same_fingerprint_also_when_opened_again(tiles: TileSet, form: str) -> None:
    address = FORMS[form](tiles)
    for found in (open_tiles(address), open_tiles(address)):
        np.testing.assert_array_equal(found.images, tiles.images)
        np.testing.assert_array_equal(found.labels, tiles.labels)
        assert found.classes == tiles.classes
        assert found.fingerprint == tiles.fingerprint
        assert (found.groups is not None) == (form in WITH_GROUPS)
        assert found.groups is None or found.groups.tolist() == tiles.groups.tolist()


@pytest.mark.parametrize("form", WITH_GROUPS)
@pytest.mark.parametrize("missing", [np.nan, "", " ", "None", "NaN", "<NA>"])
def test_tiles_without_a_group_are_counted_and_refused(tiles: TileSet, form: str, missing: object) -> None:
    groups = tiles.groups.astype("<U9")
    groups[[3, 7]] = missing
    with pytest.raises(RequestError, match=r"2 of 18 tiles have no group \(tile 3: "):
        open_tiles(FORMS[form](replace(tiles, groups=groups)))


@pytest.mark.parametrize("form", WITH_GROUPS)
def test_spaces_make_no_other_patient(tiles: TileSet, form: str) -> None:
    groups = np.array([f" p{k // 2}" if k % 2 else f"p{k // 2} " for k in range(18)])
    assert len(set(open_tiles(FORMS[form](replace(tiles, groups=groups))).groups.tolist())) == 9


@pytest.mark.parametrize("form", [*FORMS, "demo"])
def test_each_tile_has_a_name_of_its_own(tiles: TileSet, form: str) -> None:
    found = open_tiles("demo" if form == "demo" else FORMS[form](tiles))
    assert found.names.dtype.kind == "U"
    assert len(set(found.names.tolist())) == len(found)
    if form not in {"folder", "nested"}:
        assert found.names.tolist() == [str(k) for k in range(len(found))]
        return
    assert found.names[0] == ("ADI/00.png" if form == "folder" else "ADI/slide/00.png")
    assert all(Path(form, name).is_file() for name in found.names)
    assert [name.split("/")[0] for name in found.names] == [found.classes[label] for label in found.labels]


@each_form
def test_one_other_pixel_is_another_fingerprint(tiles: TileSet, form: str) -> None:
    open_tiles(FORMS[form](tiles))
    images = tiles.images.copy()
    images[-1, -1, -1, -1] ^= 1
    assert open_tiles(FORMS[form](replace(tiles, images=images))).fingerprint != tiles.fingerprint


@each_form
@pytest.mark.parametrize("share", [0, 0.5])
def test_what_is_empty_or_cut_is_refused_in_one_line_with_its_name(tiles: TileSet, form: str, share: float) -> None:
    address = FORMS[form](tiles)
    for file in (file for file in Path().rglob("*") if file.suffix in {".npz", ".png"}):
        file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(RequestError, match=form) as refused:
        open_tiles(address)
    assert "\n" not in str(refused.value)
