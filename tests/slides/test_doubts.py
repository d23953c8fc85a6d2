"""Labels in doubt as QuPath takes them, on the slides that the tiles were cut from."""

import json
import uuid
from pathlib import Path

import numpy as np

from histo_mlflow.auditing.finding import DOUBTFUL, Finding
from histo_mlflow.auditing.result import Audit
from histo_mlflow.auditing.subject import Subject
from histo_mlflow.slides.annotations import read_annotations
from histo_mlflow.slides.doubts import Doubt, write_doubts
from histo_mlflow.tiles.npz_writing import write_npz
from histo_mlflow.tiles.on_slides import OnSlides
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.tile_set import TileSet


def _places(slides: list[str]) -> OnSlides:
    n = len(slides)
    return OnSlides(np.array(slides), np.arange(n) * 100, np.full(n, 7), np.full(n, 64))


def test_each_slide_gets_its_tiles_by_rank(tmp_path: Path) -> None:
    doubts = [Doubt(2, "STR", "TUM", -0.91234), Doubt(0, "TUM", "STR", -0.5), Doubt(1, "TUM", "STR", -0.4)]
    write_doubts(tmp_path / "out", _places(["a", "b", "a"]), doubts, ("STR", "TUM"))
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.geojson", "b.geojson"]
    first, second = json.loads((tmp_path / "out" / "a.geojson").read_text())["features"]
    assert first["properties"] == {
        "objectType": "tile",
        "name": "1: STR, perhaps TUM",
        "classification": {"name": "STR", "color": [0, 114, 178]},
        "measurements": {"rank": 1, "margin": -0.9123},
    }
    assert first["geometry"]["coordinates"] == [[[200, 7], [264, 7], [264, 71], [200, 71], [200, 7]]]
    assert second["properties"]["measurements"]["rank"] == 2
    assert uuid.UUID(first["id"]) != uuid.UUID(second["id"])
    assert read_annotations(tmp_path / "out" / "a.geojson").notes == ("2 tiles passed over",), "they are no annotations"


def test_names_of_slides_lead_nowhere(tmp_path: Path) -> None:
    slides = ["../up", "..", "a/b", "a_b", "A_B", "x" * 300, "\x1b[31m"]
    write_doubts(tmp_path / "out", _places(slides), [Doubt(k, "A", "B", -1.0) for k in range(7)], ("A", "B"))
    assert len(list((tmp_path / "out").iterdir())) == len(slides)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_audit_replaces_what_an_older_one_has_left(work: Path, tiny_tiles: TileSet) -> None:
    n = len(tiny_tiles)
    arrays = {"labels": tiny_tiles.labels, "slides": np.array(["s"] * n), "left": np.arange(n), "top": np.zeros(n, int)}
    arrays |= {"edge": np.full(n, 9)}
    write_npz(work / "a.npz", [np.asarray(tiny_tiles.images)], tiny_tiles.images.shape, arrays)
    subject = Subject(open_tiles("a.npz"))
    doubt = Doubt(5, "TUM", "STR", -0.7)
    finding = Finding("label_errors", "Labels in doubt", DOUBTFUL, "one", rows=np.array([5]), doubts=[doubt])
    Audit(subject, [finding]).write(work / "out")
    (feature,) = json.loads((work / "out" / "label_errors" / "s.geojson").read_text())["features"]
    assert feature["geometry"]["coordinates"][0][0] == [5, 0]
    Audit(subject, []).write(work / "out")
    assert list((work / "out" / "label_errors").iterdir()) == []
