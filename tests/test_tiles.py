"""`histo tiles` as a user runs it: from slides and annotations to a set that `cv` takes, and back to QuPath."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from mlflow import MlflowClient

import histo_mlflow
from histo_mlflow.errors import AnnotationError, OptionError, RequestError, UnreadableSlideError
from histo_mlflow.tiles.open import open_tiles
from tests.conftest import Histo
from tests.drawn_slides import MICRONS, chequered, feature, place_of, rectangle, write_features, write_slide

_EDGE = 64  # of level 0: 32 px at twice the slide's scale
_QUICK = {"tile_size": 32, "microns_per_pixel": 2 * MICRONS, "smallest_tissue_um2": 0.0, "largest_hole_um2": 0.0, "ink": "none"}


@pytest.fixture
def slides(work: Path) -> Path:
    """Three slides of 16 x 12 squares, four columns of them glass, with a left part of class A and a right part of class B."""
    (work / "slides").mkdir()
    for k, name in enumerate("abc"):
        write_slide(work / "slides" / f"{name}.tif", chequered(16, 12, _EDGE, glass=4, seed=k))
        left, right = rectangle(0, 0, 4 * _EDGE, 12 * _EDGE), rectangle(5 * _EDGE, 2 * _EDGE, 12 * _EDGE, 6 * _EDGE)
        write_features(work / "slides" / f"{name}.geojson", feature("A", left), feature("B", right))
    return work / "slides"


def test_each_tile_is_in_its_place(slides: Path) -> None:
    found = histo_mlflow.cut_tiles(slides=str(slides / "a.tif"), output="set.npz", **_QUICK)
    assert found.n_tiles == {"A": 48, "B": 28}
    tiles = open_tiles("set.npz")
    assert tiles.on_slides is not None
    assert (tiles.classes, tiles.microns_per_pixel, tiles.tile_size_px) == (("A", "B"), 2 * MICRONS, 32)
    places = np.column_stack([tiles.on_slides.left, tiles.on_slides.top]) // _EDGE
    for tile, label, (column, row) in zip(tiles.images, tiles.labels.tolist(), places.tolist(), strict=True):
        assert place_of(tile) == (column, row)
        assert "AB"[label] == ("A" if column < 4 else "B")
    assert set(tiles.on_slides.edge.tolist()) == {_EDGE}


@pytest.mark.parametrize(("stride", "inside", "n_tiles"), [(0.5, 1.0, 7 * 23 + 13 * 7), (1.0, 0.51, 48 + 28)])
def test_strides_and_shares_are_those_asked_for(slides: Path, stride: float, inside: float, n_tiles: int) -> None:
    found = histo_mlflow.cut_tiles(slides=str(slides / "a.tif"), output="set.npz", stride=stride, inside=inside, **_QUICK)
    assert sum(found.n_tiles.values()) == n_tiles


def test_patients_and_slides_are_groups_of_a_split(histo_here: Histo, slides: Path) -> None:
    table = slides / "table.csv"
    table.write_text("slide,annotations,patient,mpp\n" + "".join(f"{n}.tif,{n}.geojson,p{n},0.25\n" for n in "abc"))
    quick = [part for name, value in _QUICK.items() for part in (f"--{name}", str(value))]
    done = histo_here("tiles", "--slides", str(table), "--at-most", "10", "--output", "set.npz", *quick)
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines() if line.startswith(("A ", "B "))] == [
        ["A", "30", "3", "3", "114"], ["B", "30", "3", "3", "54"],
    ]  # fmt: skip
    assert "next: histo cv --data" in done.stdout
    tiles = open_tiles("set.npz")
    assert list(tiles.levels) == ["patient", "slide", "region"]
    assert Counter(tiles.levels["patient"].tolist()) == {"pa": 20, "pb": 20, "pc": 20}
    asked = ["--trainable", "head", "--weights", "none", "--backbone", "torchvision:mobilenet_v3_small", "--register", "false"]
    learnt = histo_here("cv", "--data", "set.npz", "--folds", "3", *asked)
    assert learnt.returncode == 0, learnt.stderr
    assert "kept together by the split: the patient, 3 patients, each on one side only" in learnt.stdout
    record = json.loads(Path("set.json").read_text())
    assert [each["tiles"] for each in record["slides"]] == [{"A": 10, "B": 10}] * 3
    assert Path("set.png").stat().st_size > 10_000
    assert not Path("set.npz.parts").exists()


def test_a_broken_slide_is_named_and_all_others_are_in_the_set(
    slides: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (slides / "b.tif").write_bytes((slides / "b.tif").read_bytes()[:3000])
    write_features(slides / "c.geojson", feature("A", rectangle(5000, 0, 6000, 900)))
    write_slide(slides / "d.tif", chequered(16, 12, _EDGE), microns=None)
    write_slide(slides / "e.tif", chequered(16, 12, _EDGE), microns=3.0)
    (slides / "d.geojson").write_bytes((slides / "a.geojson").read_bytes())
    (slides / "e.geojson").write_bytes((slides / "a.geojson").read_bytes())
    write_slide(slides / "f.tif", chequered(16, 12, _EDGE))
    (slides / "f.geojson").write_text("{")
    with pytest.raises(UnreadableSlideError, match=r"5 of 6 slides are not in .*set\.npz") as error:
        histo_mlflow.cut_tiles(slides=str(slides), output="set.npz", **_QUICK)
    said = str(error.value)
    for reason in (
        r"b: ", "c: .*c.geojson, feature 1 (A) lies at x 5000", "d: .*does not state its microns per pixel; give mpp=",
        "e: .*has 3 micrometres per pixel, and tiles of 0.5 would be blown up", "f: .*f.geojson can't be read as GeoJSON",
    ):  # fmt: skip
        name, _, words = reason.partition(".*")
        assert name in said
        assert words in said
    assert open_tiles("set.npz").class_counts() == {"A": 48, "B": 28}
    warned = capsys.readouterr().err
    assert "e: " in warned

    write_slide(slides / "b.tif", chequered(16, 12, _EDGE, glass=4))
    for name in "cdef":
        (slides / f"{name}.geojson").unlink()
    read: list[Path] = []
    monkeypatch.setattr("histo_mlflow.pipeline.slides.cut.find_tissue", _noting(read))
    found = histo_mlflow.cut_tiles(slides=str(slides), output="set.npz", **_QUICK)
    assert found.n_tiles == {"A": 96, "B": 56}
    assert [path.name for path in read] == ["b.tif"], "what was done is not done again"
    assert "4 slides without annotations, which are left alone: c, d, e, f" in capsys.readouterr().err


def _noting(read: list[Path]) -> object:
    from histo_mlflow.slides.tissue import find_tissue

    def find(slide: object, options: object) -> object:
        read.append(slide.path)  # type: ignore[attr-defined]
        return find_tissue(slide, options)  # type: ignore[arg-type]

    return find


def test_conflicts_background_and_what_is_left_out_are_told(slides: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = rectangle(0, 0, 4 * _EDGE, 12 * _EDGE), rectangle(2 * _EDGE, 0, 13 * _EDGE, 2 * _EDGE)
    write_features(slides / "a.geojson", feature("A", left), feature("B", right), feature(None, left), feature("Region*", left))
    histo_mlflow.cut_tiles(slides=str(slides / "a.tif"), output="set.npz", background="BACK", **_QUICK)
    told = capsys.readouterr()
    rows = {
        line.split()[0]: line.split()[1:] for line in told.out.splitlines() if line.startswith(("class", "A ", "B ", "BACK"))
    }
    assert rows["A"][:3] == ["44", "1", "1"]
    assert "4 tiles lie in A and B at once" in told.out
    assert "1 annotations without a class passed over" in told.err
    assert "1 annotations of QuPath's class Region* passed over" in told.err
    assert "BACK" in rows


def test_what_nothing_was_scanned_of_is_no_tile(slides: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Squares of one colour are the same tile in every slide: they would tie all patients together."""
    pixels = chequered(16, 12, _EDGE, glass=4)
    write_slide(slides / "a.tif", pixels)
    found = histo_mlflow.cut_tiles(slides=str(slides / "a.tif"), output="set.npz", background="BACK", at_most=30, **_QUICK)
    assert "BACK" not in found.n_tiles
    told = capsys.readouterr().out
    assert "(of one colour)" in told
    assert next(line for line in told.splitlines() if line.startswith("BACK")).split()[1:4] == ["0", "0", "0"]


def test_a_class_that_holds_little_tissue_is_told_of(slides: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pale = feature("fat", rectangle(11 * _EDGE, 0, 16 * _EDGE, 256))
    write_features(
        slides / "a.geojson", feature("A", rectangle(0, 0, 256, 256)), feature("B", rectangle(256, 0, 512, 256)), pale
    )
    histo_mlflow.cut_tiles(slides=str(slides / "a.tif"), output="set.npz", **_QUICK)
    assert "most of fat is left out for its little tissue; if the class looks so" in capsys.readouterr().out


def test_classes_are_renamed_merged_and_left_out(slides: Path) -> None:
    write_features(
        slides / "a.geojson",
        feature("Tumor", rectangle(0, 0, 256, 256)), feature("Tumor: Border", rectangle(256, 0, 512, 256)),
        feature("Stroma", rectangle(0, 256, 256, 512)), feature("Necrosis", rectangle(256, 256, 512, 512)),
    )  # fmt: skip
    Path("map.yaml").write_text('TUM: [Tumor, "Tumor: Border"]\nStroma: STR\nNecrosis: null\n')
    found = histo_mlflow.cut_tiles(slides=str(slides / "a.tif"), output="set.npz", classes="map.yaml", **_QUICK)
    assert found.n_tiles == {"STR": 16, "TUM": 32}


_FAULTS: dict[str, tuple[dict[str, object], type[Exception], str]] = {
    "no slides": ({"slides": ""}, OptionError, "slides is missing"),
    "lost": ({"slides": "lost.svs"}, RequestError, "no such file or folder"),
    "lost annotations": ({"annotations": "lost"}, RequestError, "annotations=lost: no such file or folder"),
    "folder": ({"output": "lost/set.npz"}, RequestError, "does not exist; make it first"),
    "ending": ({"output": "set.zip"}, OptionError, r"name a file that ends in \.npz"),
    "half": ({"inside": 0.5}, OptionError, "inside=0.5: must be above 0.5"),
    "one class": ({"annotations": "one.geojson"}, RequestError, "names 1 class"),
    "no class": ({"annotations": "none.geojson"}, RequestError, r"none\.geojson holds no region with a class \(1 annotations"),
    "bad name": ({"annotations": "odd.geojson"}, RequestError, "has the class name '=x'"),
    "strange class": ({"without_tissue": "fat"}, OptionError, "without_tissue=fat: the classes are A B"),
    "outside": ({"annotations": "outside.geojson"}, AnnotationError, "outside of .*a.tif, which is 1024 x 768 px"),
    "no tile": ({"annotations": "small.geojson"}, RequestError, "there are tiles of A alone; a classifier needs two classes"),
    "clusters": ({"groups": "auto"}, OptionError, "groups=auto: clusters are of tiles"),
    "no pattern": ({"groups": r"re:(x\d)"}, RequestError, "is not in 1 of 1 names of the slides"),
    "coarse": ({"microns_per_pixel": 0.1}, RequestError, "would be blown up"),
}


@pytest.mark.parametrize("case", _FAULTS)
def test_what_is_wrong_is_one_line(slides: Path, case: str) -> None:
    big = rectangle(0, 0, 256, 256)
    write_features(Path("one.geojson"), feature("A", big))
    write_features(Path("none.geojson"), feature(None, big))
    write_features(Path("odd.geojson"), feature("A", big), feature("=x", big))
    write_features(Path("outside.geojson"), feature("A", big), feature("B", rectangle(1000, 700, 2000, 1400)))
    write_features(Path("small.geojson"), feature("A", big), feature("B", rectangle(300, 300, 350, 350)))
    changed, kind, reason = _FAULTS[case]
    asked = {"slides": str(slides / "a.tif"), "output": "set.npz"} | _QUICK | changed
    with pytest.raises(kind, match=reason) as error:
        histo_mlflow.cut_tiles(**asked)
    assert len(str(error.value).splitlines()) == 1
    assert not Path("set.npz").exists()


def test_killed_and_asked_again_it_comes_to_the_same_set(slides: Path) -> None:
    quick = [part for name, value in _QUICK.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "histo_mlflow", "tiles", "--slides", str(slides), "--background", "BACK", *quick]
    started = subprocess.Popen([*command, "--output", "killed.npz"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 100
    while started.poll() is None and not list(Path("killed.npz.parts").glob("*.npz")) and time.monotonic() < until:
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert list(Path("killed.npz.parts").glob("*.npz")), "a slide was finished"
    for output in ("killed.npz", "whole.npz"):
        done = subprocess.run([*command, "--output", output], capture_output=True, text=True, env=dict(os.environ), check=False)
        assert done.returncode == 0, done.stderr
    killed, whole = (np.load(name) for name in ("killed.npz", "whole.npz"))
    assert killed.files == whole.files
    for key in whole.files:
        np.testing.assert_array_equal(killed[key], whole[key])


def _draw_polyp(folder: Path, real_data: Path) -> Path:
    """Draw what the mask says is tissue: the pieces above as one class, the large one below as another."""
    mask = cv2.imread(str(real_data / "polyp_section" / "section1_tissue_mask_16x.png"), cv2.IMREAD_GRAYSCALE)
    assert mask is not None
    opened = cv2.morphologyEx((mask > 0).astype(np.uint8), cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))
    features = []
    for top in range(0, len(mask), 216):
        band = np.zeros_like(opened)
        band[top : top + 208] = opened[top : top + 208]
        for outline in cv2.findContours(band, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
            if cv2.contourArea(outline) > 4000:
                ring = [(16.0 * x, 16.0 * y) for x, y in outline[:, 0]]
                features.append(feature("upper" if top < 864 else "lower", [*ring, ring[0]]))
    return write_features(folder / "section1.geojson", *features)


@pytest.mark.slow
def test_from_a_real_slide_to_a_model_and_back(work: Path, histo_here: Histo, real_data: Path) -> None:
    drawn = _draw_polyp(work, real_data)
    slide = real_data / "polyp_section" / "section1.tif"
    cut = ["--annotations", str(drawn), "--mpp", "0.25", "--at-most", "150", "--tile-size", "112", "--microns-per-pixel", "1"]
    done = histo_here("tiles", "--slides", str(slide), *cut, "--output", "set.npz")
    assert done.returncode == 0, done.stderr
    tiles = open_tiles("set.npz")
    assert tiles.class_counts() == {"lower": 150, "upper": 150}
    learnt = histo_here("cv", "--data", "set.npz", "--trainable", "head", "--backbone", "lite0", "--folds", "3")
    assert learnt.returncode == 0, learnt.stderr
    assert "kept together by the split: the region, " in learnt.stdout
    run = learnt.stdout.rpartition("/runs/")[2][:32]
    assert MlflowClient().get_run(run).data.metrics["oof/balanced_accuracy"] > 0.5
    audited = histo_here("audit", "--data", "set.npz", "--run", run, "--output", "audit")
    assert audited.returncode == 0, audited.stderr
    facts = json.loads(Path("audit/audit.json").read_text())
    n_doubtful = next(each["n"] for each in facts["findings"] if each["kind"] == "label_errors")
    (file,) = Path("audit/label_errors").iterdir()
    features = json.loads(file.read_text())["features"]
    assert (file.name, len(features)) == ("section1.geojson", n_doubtful)
    for rank, each in enumerate(features, 1):
        properties = each["properties"]
        assert uuid.UUID(each["id"])
        assert (properties["objectType"], properties["measurements"]["rank"]) == ("tile", rank)
        assert properties["classification"]["name"] in {"lower", "upper"}
        assert len(properties["classification"]["color"]) == 3
        left, top = each["geometry"]["coordinates"][0][0]
        row = tiles.names.tolist().index(f"section1/{left}_{top}")
        assert tiles.classes[tiles.labels[row]] == properties["classification"]["name"]
