"""Features of other programs as tiles: what is read of them, and what is said of files that are not as they should be."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from histo_mlflow.errors import RequestError, TileFormatError
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.unlabelled import open_images
from tests.feature_writers import (
    CLASSES,
    N_FEATURES,
    WRITERS,
    draw_coordinates,
    draw_features,
    write_lazyslide,
    write_slides,
    write_stamp,
    write_trident,
)

pytestmark = pytest.mark.usefixtures("work")
ENCODERS = {"TRIDENT": "uni_v1", "STAMP": "uni2", "LazySlide": "uni"}


@pytest.mark.parametrize("program", WRITERS)
def test_slides_of_each_program_are_read(work: Path, program: str) -> None:
    tiles = open_tiles(write_slides(work / "slides", program))
    assert tiles.classes == CLASSES
    assert tiles.class_counts() == {"benign": 72, "malignant": 72}
    assert tiles.form.n_features == N_FEATURES
    assert tiles.encoder == ENCODERS[program]
    assert tiles.tile_size_px == 0
    assert tiles.groups is not None
    assert sorted(set(tiles.groups)) == sorted(f"{c}{k}" for c in "bm" for k in range(6))
    expected = np.concatenate([draw_features(label, seed=k) for label in (0, 1) for k in range(6)])
    exact = expected.astype(np.float16).astype(np.float32) if program == "STAMP" else expected
    np.testing.assert_array_equal(tiles.images, exact)
    scale = 0.5 if program == "STAMP" else 1  # coordinates in the unit of the file
    assert tiles.names[1] == f"b0_{512 * scale:g}_{1024 * scale:g}"


def test_the_same_features_have_the_same_fingerprint_in_every_form(work: Path) -> None:
    values = draw_features(0).astype(np.float16).astype(np.float32)
    found = set()
    for program, (write, suffix) in WRITERS.items():
        for name in CLASSES:
            (work / program / name).mkdir(parents=True)
            write(work / program / name / f"{name}{suffix}", values)
        found.add(open_tiles(work / program).fingerprint)
    assert len(found) == 1


def test_labels_and_patients_stand_in_a_table_beside_the_slides(work: Path) -> None:
    folder = work / "slides"
    folder.mkdir()
    for k in range(4):
        write_trident(folder / f"s{k}.h5", draw_features(k % 2, seed=k))
    (folder / "slides.csv").write_text("slide,label,patient\ns0,a,p1\ns1,b,p1\ns2,a,p2\ns3,b,p2\n")
    tiles = open_tiles(folder)
    assert tiles.classes == ("a", "b")
    assert tiles.labels.tolist() == [0] * 12 + [1] * 12 + [0] * 12 + [1] * 12
    assert tiles.groups is not None
    assert tiles.groups.tolist() == ["p1"] * 24 + ["p2"] * 24
    (folder / "slides.csv").write_text("slide,label\ns0,a\ns1,b\ns2,a\n")
    with pytest.raises(TileFormatError, match="does not name the slide s3"):
        open_tiles(folder)
    (folder / "slides.csv").write_text("slide,label\ns0,a\ns1,b\ns2,a\ns3,b\ns3,a\n")
    with pytest.raises(TileFormatError, match="names the slide s3 twice"):
        open_tiles(folder)
    (folder / "slides.csv").write_text("name,label\ns0,a\n")
    with pytest.raises(TileFormatError, match="columns name label; slide and label are needed"):
        open_tiles(folder)


def test_labels_of_tiles_stand_in_the_file(work: Path) -> None:
    write_lazyslide(work / "s.zarr", draw_features(0), labels=["TUM", "STR"] * 6)
    tiles = open_tiles(work / "s.zarr")
    assert tiles.classes[-2:] == ("STR", "TUM")
    assert tiles.labels[:2].tolist() == [8, 7]
    write_trident(work / "s.h5", draw_features(0))
    with h5py.File(work / "s.h5", "r+") as file:
        file["labels"] = np.array([0, 1] * 6)
        file.attrs["classes"] = ["x", "y"]
    assert open_tiles(work / "s.h5").class_counts() == {"x": 6, "y": 6}


def test_a_table_of_several_is_named(work: Path) -> None:
    write_lazyslide(work / "s.zarr", draw_features(0), labels=["x", "y"] * 6)
    import zarr

    group = zarr.open_group(work / "s.zarr", mode="r+")
    other = group["tables"].create_group("gigapath_tiles")  # type: ignore[union-attr]
    other.create_array("X", data=draw_features(1, n_features=8))
    other.create_group("obs").create_array("tile_id", data=np.arange(12))
    with pytest.raises(RequestError, match=r"several tables of features; name one: .*#gigapath_tiles or .*#uni_tiles"):
        open_tiles(work / "s.zarr")
    assert open_tiles(f"{work}/s.zarr#uni_tiles").form.n_features == N_FEATURES
    with pytest.raises(RequestError, match="no table of features 'uni'"):
        open_tiles(f"{work}/s.zarr#uni")


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_plain_npz_is_read(work: Path, kind: type, save: Any) -> None:
    values = draw_features(0).astype(kind)
    groups = np.array(["p1"] * 6 + ["p2"] * 6)
    save(work / "f.npz", features=values, labels=np.array([0, 1] * 6), classes=np.array(["x", "y"]), groups=groups)
    tiles = open_tiles(work / "f.npz")
    np.testing.assert_array_equal(tiles.images, values.astype(np.float32))
    assert tiles.form.n_features == N_FEATURES
    assert tiles.encoder == "not stated"
    assert tiles.classes == ("x", "y")
    assert tiles.groups is not None
    assert tiles.groups[-1] == "p2"
    save(
        work / "f.npz",
        features=np.asfortranarray(values),
        labels=np.array([0, 1] * 6),
        classes=np.array(["x", "y"]),
        encoder="uni",
    )
    again = open_tiles(work / "f.npz")
    assert again.fingerprint == tiles.fingerprint
    assert again.encoder == "uni"


def test_unlabelled_features_are_named_by_their_place(work: Path) -> None:
    write_stamp(work / "s1.h5", draw_features(0))
    images = open_images(str(work / "s1.h5"))
    assert images.column == "tile"
    assert images.names[2] == "s1_512_512"
    assert len(images) == 12
    np.savez(work / "f.npz", features=draw_features(0))
    assert open_images(str(work / "f.npz")).column == "index"


def _slides(work: Path, write: Any, suffix: str, **changes: Any) -> Path:
    """A folder of two slides, the second of them with `changes`."""
    for name in CLASSES:
        (work / "slides" / name).mkdir(parents=True)
    write(work / "slides" / "benign" / f"b{suffix}", draw_features(0))
    write(work / "slides" / "malignant" / f"m{suffix}", changes.pop("features", draw_features(1)), **changes)
    return work / "slides"


NAN = np.where(np.arange(192).reshape(12, 16) == 37, np.nan, draw_features(1))
FAULTS = {
    "other encoder": ({"encoder": "conch"}, "16 features by .*; give files of one encoder"),
    "other width": ({"features": draw_features(1, n_features=8)}, "holds 8 features by .*16"),
    "no coords": ({"coords": None}, "has no coords for its 12 tiles"),
    "coords of other length": ({"coords": draw_coordinates(11)}, r"coords .*\(12, 2\) is needed|has no coords"),
    "NaN": ({"features": NAN}, "features of tile 14 are not all numbers"),
    "no tiles": ({"features": np.zeros((0, 16), np.float32)}, "holds nothing"),
    "one dimension too many": ({"features": draw_features(1)[None]}, r"features are floats \(n_tiles, n_features\)"),
    "integers": ({"features": np.ones((12, 16), np.int64)}, r"features are floats \(n_tiles, n_features\)"),
}  # fmt: skip


# STAMP's writer makes half precision of everything; LazySlide's table and its shapes are joined by tile.
IMPOSSIBLE = {
    "STAMP": {"integers", "one dimension too many"},
    "LazySlide": {"coords of other length", "no tiles", "one dimension too many"},
}


@pytest.mark.parametrize(
    ("program", "fault"),
    [(program, fault) for program in WRITERS for fault in FAULTS if fault not in IMPOSSIBLE.get(program, ())],
)
def test_faults_are_one_line(work: Path, program: str, fault: str) -> None:
    write, suffix = WRITERS[program]
    changes, message = FAULTS[fault]
    with pytest.raises(TileFormatError, match=message) as caught:
        open_tiles(_slides(work, write, suffix, **changes))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert str(work) in str(caught.value)


def test_more_faults_of_files(work: Path) -> None:
    def said(name: str) -> str:
        with pytest.raises(RequestError) as caught:
            open_tiles(work / name)
        return str(caught.value)

    (work / "text.h5").write_text("no HDF5")
    assert "can't be read as features" in said("text.h5")
    write_trident(work / "bare.h5", draw_features(0))
    assert "has no labels; put the files of each class" in said("bare.h5")
    whole = (work / "bare.h5").read_bytes()
    (work / "cut.h5").write_bytes(whole[: len(whole) // 2])
    assert "can't be read as features" in said("cut.h5")
    write_stamp(work / "slide.h5", draw_features(0), feat_type="slide")
    assert "features of a slide, not of tiles" in said("slide.h5")
    with h5py.File(work / "other.h5", "w") as file:
        file["embeddings"] = draw_features(0)
    assert "neither `features` nor `feats`, but embeddings" in said("other.h5")
    (work / "empty.zarr").mkdir()
    assert "can't be read as features" in said("empty.zarr") or "no table of features" in said("empty.zarr")
    np.savez(work / "labels.npz", features=draw_features(0), labels=np.arange(11), classes=np.array(["x", "y"]))
    assert "has shape (11,); one for each of 12 tiles" in said("labels.npz")
    np.savez(work / "flat.npz", features=np.arange(12.0), labels=np.arange(12))
    assert "features are floats (n_tiles, n_features)" in said("flat.npz")


def test_a_file_leads_nowhere_else_and_claims_no_more_than_it_holds(work: Path) -> None:
    write_trident(work / "secret.h5", draw_features(0))
    with h5py.File(work / "link.h5", "w") as file:
        file["features"] = h5py.ExternalLink("secret.h5", "features")
    with pytest.raises(TileFormatError, match=r"refers to another file|can't be read"):
        open_tiles(work / "link.h5")
    with h5py.File(work / "vast.h5", "w") as file:
        file.create_dataset("features", (2**23, 2**12), np.float32, chunks=(1024, 64))
        file["coords"] = np.zeros((2, 2))
    with pytest.raises(TileFormatError, match="more than its 0 bytes can hold"):
        open_tiles(work / "vast.h5")
