"""`histo audit` as a user runs it: what is said, what is written, what is refused."""

import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pytest

import histo_mlflow
from histo_mlflow.errors import OptionError, RequestError
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.options import ReadingOptions
from histo_mlflow.tiles.tile_set import TileSet
from tests.auditing.plants import texture
from tests.conftest import Histo, save_npz


def _save(path: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    np.savez(path, data=images, labels=labels, classes=np.array(["fat", "gland"]))
    return path


@pytest.fixture
def two_sets(work: Path) -> tuple[Path, Path]:
    learnt, tested = texture(40), texture(20, seed=3)
    learnt[30], learnt[31], tested[2] = learnt[4], learnt[5][:, ::-1], learnt[7]
    labels = np.arange(40) % 2
    labels[30] = 1 - labels[4]
    return _save(work / "a.npz", learnt, labels), _save(work / "b.npz", tested, np.arange(20) % 2)


def test_what_is_found_stands_on_the_page_in_the_facts_and_in_the_list(histo_here: Histo, two_sets: tuple[Path, Path]) -> None:
    data, test = map(str, two_sets)
    done = histo_here("audit", "--data", data, "--test-data", test, "--output", "found")
    assert done.returncode == 0, done.stderr
    assert "Exact duplicates of different classes" in done.stdout
    page, facts = Path("found/audit.html").read_text(), json.loads(Path("found/audit.json").read_text())
    assert "Near-duplicates" in page
    assert page.count("data:image/jpeg;base64,") >= 6
    assert "in 1 cluster of" in page
    assert not re.search(r">1 \w+s\b|\b1 (tiles|clusters|labels)\b", page)
    kinds = {each["kind"]: each for each in facts["findings"]}
    assert kinds["exact_leak"]["tiles"] == {"data": ["7"], "test_data": ["2"]}
    assert kinds["near_duplicates"]["tiles"]["data"] == ["5", "31"]
    assert Path("found/exclude.txt").read_text().split() == facts["exclude"] == ["4", "7", "30", "31"]


def test_the_list_is_what_exclude_takes(histo_here: Histo, two_sets: tuple[Path, Path]) -> None:
    data, test = map(str, two_sets)
    assert histo_here("audit", "--data", data, "--test-data", test, "--output", "found").returncode == 0
    again = histo_here("audit", "--data", data, "--test-data", test, "--exclude", "found/exclude.txt", "--output", "cleaned")
    assert again.returncode == 0, again.stderr
    facts = json.loads(Path("cleaned/audit.json").read_text())
    assert not [each["kind"] for each in facts["findings"] if each["severity"] == "serious"]
    assert facts["sets"]["data"]["n_tiles"] == 36


def test_clusters_are_groups_that_training_takes(histo_here: Histo, two_sets: tuple[Path, Path]) -> None:
    data = str(two_sets[0])
    assert histo_here("audit", "--data", data, "--output", "found").returncode == 0
    tiles = open_tiles(data, reading=ReadingOptions(groups="found/clusters.csv"))
    assert tiles.groups is not None
    assert tiles.groups[5] == tiles.groups[31] != tiles.groups[4] == tiles.groups[30]
    assert len(np.unique(tiles.groups)) == 38


def test_features_and_predictions_of_a_run_are_asked(work: Path, small_network: None, tiny_tiles: TileSet) -> None:
    data = save_npz(work / "tiny.npz", tiny_tiles)
    run = histo_mlflow.cv(data=str(data), folds=2, epochs=1, batch_size=9, weights="none", register=False).run_id
    result = histo_mlflow.audit(data=str(data), run=run, output="found")
    facts = json.loads(result.page.with_name("audit.json").read_text())
    labels = next(each for each in facts["findings"] if each["kind"] == "label_errors")
    assert labels["severity"] != "unasked"
    assert "the run" in labels["summary"]
    with pytest.raises(RequestError, match="has learnt from other tiles"):
        histo_mlflow.audit(data="demo", run=run)


def test_what_can_not_be_audited_is_refused(two_sets: tuple[Path, Path], work: Path) -> None:
    (work / "file").touch()
    with pytest.raises(OptionError, match="is a file; name a folder"):
        histo_mlflow.audit(data=str(two_sets[0]), output="file")
    _save(work / "one.npz", texture(1), np.zeros(1, np.int64))
    with pytest.raises(RequestError, match="has one tile"):
        histo_mlflow.audit(data=str(work / "one.npz"))


def test_files_go_to_the_run_that_mlflow_has_begun(histo: Histo, two_sets: tuple[Path, Path], work: Path) -> None:
    with mlflow.start_run() as begun:
        done = histo("audit", "--data", two_sets[0], "--output", "found", MLFLOW_RUN_ID=begun.info.run_id)
    assert done.returncode == 0, done.stderr
    files = {each.path for each in mlflow.MlflowClient().list_artifacts(begun.info.run_id, "audit")}
    assert files == {f"audit/{name}" for name in ("audit.html", "audit.json", "exclude.txt", "clusters.csv")}
