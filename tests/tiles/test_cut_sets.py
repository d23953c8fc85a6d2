"""An npz that says where its tiles lie: slides, patients, sites and regions as levels, names by place."""

from pathlib import Path

import numpy as np
import pytest

from histo_mlflow.errors import TileFormatError
from histo_mlflow.tiles.npz_writing import write_npz
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.options import FoldOptions, ReadingOptions
from histo_mlflow.tiles.splits import cut_folds
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tiles.units import find_units


def _arrays(tiles: TileSet, n_slides: int = 6) -> dict[str, np.ndarray]:
    n = len(tiles)
    slides = np.array([f"s{k}" for k in range(n_slides)])[np.arange(n) * n_slides // n]
    return {
        "labels": np.arange(n) % 2, "classes": np.array(["A", "B"]), "slides": slides,
        "regions": np.array([f"{slide}/{k % 2}" for k, slide in enumerate(slides)]),
        "left": np.arange(n) * 64, "top": np.full(n, 128), "edge": np.full(n, 64), "microns_per_pixel": np.array(0.5),
    }  # fmt: skip


def _save(path: Path, tiles: TileSet, **arrays: np.ndarray) -> Path:
    images = np.asarray(tiles.images)
    write_npz(path, (images[k : k + 10] for k in range(0, len(images), 10)), images.shape, arrays)
    return path


def test_what_is_written_in_blocks_is_what_numpy_reads_and_maps(work: Path, tiny_tiles: TileSet) -> None:
    file = _save(work / "a.npz", tiny_tiles, **_arrays(tiny_tiles))
    with np.load(file) as found:
        np.testing.assert_array_equal(found["data"], tiny_tiles.images)
    tiles = open_tiles(file)
    np.testing.assert_array_equal(tiles.images, tiny_tiles.images)
    assert not list((work / "cache").rglob("*.npy")), "it is mapped where it lies"
    assert tiles.microns_per_pixel == 0.5
    assert list(work.glob("*draft*")) == []


def test_a_writer_that_fails_leaves_what_was_there(work: Path, tiny_tiles: TileSet) -> None:
    file = _save(work / "a.npz", tiny_tiles, **_arrays(tiny_tiles))
    before = file.read_bytes()
    with pytest.raises(ZeroDivisionError):
        write_npz(file, (np.zeros((1, 8, 8, 3), np.uint8) for _ in range(1 // 0)), (1, 8, 8, 3), {})
    assert file.read_bytes() == before


def test_levels_names_and_places(work: Path, tiny_tiles: TileSet) -> None:
    arrays = _arrays(tiny_tiles)
    patients = np.array(["p" + slide[1:] for slide in arrays["slides"]])
    patients[patients == "p5"] = "p4"
    tiles = open_tiles(_save(work / "a.npz", tiny_tiles, **arrays, patients=patients, groups=patients))
    assert list(tiles.levels) == ["patient", "slide", "region"]
    assert tiles.groups is not None
    assert set(tiles.groups) == {"p0", "p1", "p2", "p3", "p4"}
    assert tiles.names[1] == "s0/64_128"
    assert tiles.on_slides is not None
    assert (tiles.on_slides.slides[53], tiles.on_slides.left[53], tiles.on_slides.edge[53]) == ("s5", 53 * 64, 64)
    by_patient = cut_folds(tiles, FoldOptions(folds=5), seed=0)
    assert by_patient[0].unit.level == "patient"
    assert "the patient, 5 patients" in by_patient[0].unit.describe()
    by_slide = cut_folds(tiles, FoldOptions(folds=5, split_by="slide"), seed=0)
    assert "the slide, 6 slides" in by_slide[0].unit.describe()


def test_left_out_tiles_and_joined_sets_keep_their_places(work: Path, tiny_tiles: TileSet) -> None:
    arrays = _arrays(tiny_tiles)
    _save(work / "a.npz", tiny_tiles, **arrays)
    (work / "out.txt").write_text("s0/0_128\n1\n")
    tiles = open_tiles("a.npz", reading=ReadingOptions(exclude="out.txt"))
    assert tiles.on_slides is not None
    assert (len(tiles), tiles.on_slides.left[0], tiles.names[0]) == (52, 128, "s0/128_128")
    _save(work / "b.npz", tiny_tiles, **arrays | {"slides": np.char.add("t", arrays["slides"])})
    both = open_tiles("a.npz,b.npz")
    assert both.on_slides is not None
    assert (both.on_slides.slides[0], both.on_slides.slides[54]) == ("s0", "ts0")
    no_places = {name: array for name, array in arrays.items() if name not in {"left", "top", "edge"}}
    _save(work / "c.npz", tiny_tiles, **no_places)
    assert open_tiles("c.npz").on_slides is None
    assert open_tiles("a.npz,c.npz").on_slides is None


def test_a_table_of_slides_says_who_the_patients_are(work: Path, tiny_tiles: TileSet) -> None:
    _save(work / "a.npz", tiny_tiles, **_arrays(tiny_tiles))
    (work / "slides.csv").write_text("PATIENT,FILENAME\n" + "".join(f"p{k // 2},s{k}.svs\n" for k in range(6)))
    tiles = open_tiles("a.npz", reading=ReadingOptions(groups="slides.csv"))
    assert tiles.groups is not None
    assert set(tiles.groups) == {"p0", "p1", "p2"}


def test_regions_part_the_tiles_of_one_slide_alone(work: Path, tiny_tiles: TileSet) -> None:
    several = open_tiles(_save(work / "a.npz", tiny_tiles, **_arrays(tiny_tiles)))
    assert [unit.level for unit in find_units(several, "auto")] == ["slide"]
    assert [unit.level for unit in find_units(several, "region")] == ["region"]
    one = _arrays(tiny_tiles, n_slides=1) | {"regions": np.array([f"r{k // 9}" for k in range(54)])}
    tiles = open_tiles(_save(work / "one.npz", tiny_tiles, **one))
    split = cut_folds(tiles, FoldOptions(folds=3), seed=0)[0]
    assert split.unit.describe() == (
        "the region, 6 regions, each on one side only (regions of one slide lie on both sides: optimistic); not slide (1 of "
        "them), too few to part the classes as asked"
    )


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("slides", np.array(["a"]), r"slides\] has shape \(1,\); one slide for each of 54 tiles"),
        ("regions", np.array([""] * 54), r"regions\]: 54 of 54 tiles have no group"),
        ("left", np.zeros(54), r"left\] holds float64 values; pixels of level 0 are integers"),
        ("edge", np.zeros(3, int), r"edge\] has shape \(3,\); one for each of 54 tiles"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(work: Path, tiny_tiles: TileSet, key: str, value: np.ndarray, reason: str) -> None:
    _save(work / "a.npz", tiny_tiles, **_arrays(tiny_tiles) | {key: value})
    with pytest.raises(TileFormatError, match=reason):
        open_tiles("a.npz")
