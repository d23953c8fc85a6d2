"""The right label for the right tile: classes by name, renamed, merged, read from names of files; and what is left out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo_mlflow.errors import OptionError, RequestError, SourceNotFoundError
from histo_mlflow.tiles.fingerprint import fingerprint_of
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.options import ReadingOptions
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES, TileSet
from tests.conftest import save_npz

_TIATOOLBOX = ["BACK", "NORM", "DEB", "TUM", "ADI", "MUC", "MUS", "STR", "LYM"]


def _read(source: str, **options: str) -> TileSet:
    return open_tiles(source, reading=ReadingOptions(**options))


def _by_name(tiles: TileSet) -> list[str]:
    return [tiles.classes[label] for label in tiles.labels]


def test_the_nine_in_another_order_are_taken_by_name_and_aloud(tiny_npz: Path, tiny_tiles: TileSet) -> None:
    labels = [_TIATOOLBOX.index(tiny_tiles.classes[label]) for label in tiny_tiles.labels]
    np.savez("tia.npz", data=tiny_tiles.images, labels=labels, classes=_TIATOOLBOX)
    tiles = open_tiles("tia.npz")
    assert tiles.classes == COLORECTAL_CLASSES
    assert _by_name(tiles) == _by_name(tiny_tiles)
    assert tiles.fingerprint == tiny_tiles.fingerprint, "the same tiles, however a file numbers their classes"
    (note,) = tiles.notes
    assert "TIAToolbox's order (BACK NORM DEB" in note
    assert open_tiles(tiny_npz).notes == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TUM: tumour\nADI: fat\n", lambda name: {"TUM": "tumour", "ADI": "fat"}.get(name, name)),
        ("stroma: [STR, MUS]\nTUM: TUM", lambda name: "stroma" if name in {"STR", "MUS"} else name),
        ("STR: TUM", lambda name: "TUM" if name == "STR" else name),
        ("STR: null\nDEB: ~", lambda name: None if name in {"STR", "DEB"} else name),
        ("ADI: BACK\nBACK: ADI", lambda name: {"ADI": "BACK", "BACK": "ADI"}.get(name, name)),
        ("rest: [ADI, BACK, DEB, LYM, MUC, MUS, NORM, STR]", lambda name: name if name == "TUM" else "rest"),
    ],
)
def test_classes_are_renamed_merged_and_left_out(
    tiny_npz: Path, tiny_tiles: TileSet, text: str, expected: Callable[[str], str | None]
) -> None:
    Path("map.yaml").write_text(text)
    tiles = _read(str(tiny_npz), classes="map.yaml")
    new = [expected(name) for name in _by_name(tiny_tiles)]
    rows = np.flatnonzero([name is not None for name in new])
    assert _by_name(tiles) == [name for name in new if name is not None]
    np.testing.assert_array_equal(tiles.images[:], tiny_tiles.images[rows])
    assert tiles.names.tolist() == [str(row) for row in rows]
    assert tiles.fingerprint == fingerprint_of(tiny_tiles.images[rows], tiles.labels)
    assert (f"; {54 - len(rows)} tiles are left out" in tiles.notes[-1]) == (len(rows) < 54)
    assert tiles.describe().startswith(f"{tiny_npz} (classes: ")
    assert set(tiles.classes) <= set(COLORECTAL_CLASSES) or set(tiles.classes) == set(_by_name(tiles))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("TUMOUR: x", "there is no class TUMOUR; the classes are ADI"),
        ("TUM: x\ny: [TUM, ADI]", "names a class twice"),
        ("TUM: {a: b}", "is not the name of a class"),
        ("TUM: no", "put names such as yes, no, on, off in quotes"),
        ("x: [TUM, null]", "is not the name of a class"),
        ("- TUM", "is not a yaml with names of classes"),
        ("TUM: =1", "has the class name '=1'"),
        ("one: [ADI, BACK, DEB, LYM, MUC, MUS, NORM, STR, TUM]", "names 1 class"),
        ("\n".join(f"{name}: null" for name in COLORECTAL_CLASSES), "leaves no class"),
    ],
)
def test_a_map_that_makes_no_sense_is_refused(tiny_npz: Path, text: str, reason: str) -> None:
    Path("map.yaml").write_text(text)
    with pytest.raises(RequestError, match=reason) as refused:
        _read(str(tiny_npz), classes="map.yaml")
    assert "\n" not in str(refused.value)
    with pytest.raises(SourceNotFoundError, match="no such file"):
        _read(str(tiny_npz), classes="gone.yaml")


@pytest.fixture
def flat(work: Path) -> Path:
    """Twelve tiles in one folder and one below it, with labels 0, 1, 2 and 10 in their names."""
    rng = np.random.default_rng(0)
    for k in range(12):
        file = work / "flat" / ("" if k < 8 else "below") / f"image_{k}_label_{(0, 1, 2, 10)[k % 4]}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    return work / "flat"


def test_labels_are_read_from_names_of_files(flat: Path) -> None:
    tiles = _read("flat", labels=r"re:label_(\d+)")
    assert tiles.classes == ("0", "1", "2", "10"), "numbers in their order"
    assert _by_name(tiles) == [name.rpartition("_")[2].removesuffix(".png") for name in tiles.names]
    Path("map.yaml").write_text("tumour: [0, 1]\n2: fat\n10: null\n")
    merged = _read("flat", labels=r"re:label_(\d+)", classes="map.yaml")
    assert merged.class_counts() == {"tumour": 6, "fat": 3}
    with pytest.raises(RequestError, match=r"labels=re:label_\(x\) is not in 12 of 12 names of flat"):
        _read("flat", labels="re:label_(x)")


@pytest.mark.parametrize(
    ("labels", "source", "reason"),
    [
        ("folders", "flat", "give stored, a pattern"),
        ("column:x", "flat", "name the table that has this column by groups=TABLE"),
        (r"re:(\d)", "demo", "its labels are stored with its tiles"),
        ("re:(", "flat", "is not a pattern"),
    ],
)
def test_labels_that_can_not_be_had_are_refused(flat: Path, labels: str, source: str, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        _read(source, labels=labels)


def test_tiles_are_left_out_by_name_or_index_and_counted(flat: Path, tiny_npz: Path, tiny_tiles: TileSet) -> None:
    Path("out.txt").write_text("# from the audit\n0\n3  # blurred\n\n53\n3\n")
    tiles = _read(str(tiny_npz), exclude="out.txt")
    rows = np.setdiff1d(np.arange(54), [0, 3, 53])
    np.testing.assert_array_equal(tiles.images[:], tiny_tiles.images[rows])
    assert tiles.names.tolist() == [str(row) for row in rows]
    assert tiles.notes == ("3 of 54 tiles are left out by out.txt",)
    names = _read("flat", labels=r"re:label_(\d+)").names
    Path("out.txt").write_text(f"{names[4]}\n0\n")
    left = _read("flat", labels=r"re:label_(\d+)", exclude="out.txt", groups=r"re:image_(\d+)_")
    assert left.names.tolist() == [name for k, name in enumerate(names) if k not in {0, 4}]
    assert left.groups is not None
    assert len(left.groups) == 10
    Path("out.txt").write_text("")
    assert _read(str(tiny_npz), exclude="out.txt").fingerprint == tiny_tiles.fingerprint


@pytest.mark.parametrize("content", ["54\n", "gone.png\n0\n", "-1\n", "1.5\n"])
def test_a_list_that_names_no_tile_is_refused(tiny_npz: Path, content: str) -> None:
    Path("out.txt").write_text(content)
    with pytest.raises(OptionError, match=r"exclude=out\.txt: 1 line\(s\) name no tile of the set"):
        _read(str(tiny_npz), exclude="out.txt")


def test_all_or_nothing_to_leave_out_is_refused(tiny_npz: Path) -> None:
    Path("out.txt").write_text("\n".join(map(str, range(54))))
    with pytest.raises(OptionError, match="leaves no tile"):
        _read(str(tiny_npz), exclude="out.txt")
    with pytest.raises(SourceNotFoundError, match="no such file"):
        _read(str(tiny_npz), exclude="gone.txt")


def test_the_scale_is_the_files_or_given_and_never_assumed(work: Path, tiny_tiles: TileSet) -> None:
    save_npz(work / "a.npz", tiny_tiles)
    assert open_tiles("a.npz").microns_per_pixel is None
    np.savez("b.npz", data=tiny_tiles.images, labels=tiny_tiles.labels, microns_per_pixel=0.25)
    assert open_tiles("b.npz").microns_per_pixel == 0.25
    assert open_tiles("b.npz").microns_at(64) == 0.125
    given = open_tiles("b.npz", reading=ReadingOptions(microns_per_pixel=0.5))
    assert given.microns_per_pixel == 0.5
    assert "states 0.25 microns per pixel; the option goes before it" in given.notes[0]
    for wrong in (0.0, np.nan, -1.0, np.inf, "x", [0.5, 0.5]):
        np.savez("c.npz", data=tiny_tiles.images, labels=tiny_tiles.labels, microns_per_pixel=wrong)
        with pytest.raises(RequestError, match="microns_per_pixel"):
            open_tiles("c.npz")


def test_real_labels_of_kather_2016_are_in_names_of_files(work: Path, real_data: Path) -> None:
    Path("map.yaml").write_text("0: tumour\n1: stroma\n2: complex\n3: lympho\n4: debris\n5: mucosa\n6: adipose\n7: empty\n")
    tiles = _read(str(real_data / "kather2016_100"), labels=r"re:label_(\d)", classes="map.yaml")
    assert tiles.classes == ("tumour", "stroma", "complex", "lympho", "debris", "mucosa", "adipose", "empty")
    assert len(tiles) == 100
    counts = {name: len(list((real_data / "kather2016_100").glob(f"*label_{k}.png"))) for k, name in enumerate(tiles.classes)}
    assert tiles.class_counts() == counts


def test_what_was_done_to_a_set_survives_in_a_part_of_it(tiny_tiles: TileSet) -> None:
    assert replace(tiny_tiles, notes=("a", "b")).describe() == f"{tiny_tiles.source} (a; b)"
