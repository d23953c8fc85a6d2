"""Cross-validation by patient and by site on real tissue, from the command line to the card."""

import io
import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from tests.conftest import Histo

pytestmark = pytest.mark.usefixtures("small_network")

_QUICK = ["--image-size", "32", "--epochs", "1", "--weights", "none", "--batch-size", "32", "--register", "false"]


def _folds(client: MlflowClient, run: str) -> np.ndarray:
    file = io.BytesIO(Path(client.download_artifacts(run, "split.npz")).read_bytes())
    return np.asarray(np.load(file)["fold"])


def _card_and_facts(best: str) -> tuple[str, dict[str, object]]:
    folder = next(path for path in Path("mlruns").rglob("model_card.md") if best in path.read_text()).parent
    return (folder / "model_card.md").read_text(), json.loads((folder / "data" / "model.json").read_text())


def _run_id(said: str) -> str:
    return re.findall(r"/runs/([0-9a-f]{32})", said)[-1]


@pytest.mark.slow
def test_glas_by_patient(work: Path, histo_here: Histo, real_data: Path) -> None:
    groups = r"re:(?P<patient>p\d+)_"
    asked = ["cv", "--data", str(real_data / "glas_tiles"), "--groups", groups, "--microns-per-pixel", "0.62", "--folds", "4"]
    done = histo_here(*asked, *_QUICK)
    assert done.returncode == 0, done.stderr
    words = "the patient, 16 patients, each on one side only"
    assert f"kept together by the split: {words}" in done.stdout
    client, run = MlflowClient(), _run_id(done.stdout)
    notes = mlflow.artifacts.load_dict(f"runs:/{run}/about.json")
    assert (notes["split_by"], notes["split_unit"]) == ("patient", words)
    folds = _folds(client, run)
    names = sorted((real_data / "glas_tiles").glob("*/*.jpg"))
    patients = np.array([name.name.partition("_")[0] for name in names])
    assert len(folds) == len(names) == 950
    for patient in set(patients):
        assert len(set(folds[patients == patient])) == 1, patient
    card, facts = _card_and_facts(words)
    assert facts["split_unit"] == words
    assert facts["microns_per_pixel"] == pytest.approx(0.62 * 224 / 32)
    assert "4.34 microns per pixel" in card
    assert words in Path(client.download_artifacts(run, "evaluation/oof/report.html")).read_text()
    by_tile = histo_here(*asked[:3], *asked[5:], *_QUICK)
    assert by_tile.returncode == 0, by_tile.stderr
    assert "tile-level split: optimistic" in by_tile.stdout
    assert "tile-level split: optimistic" in _card_and_facts("tile-level split")[0]
    page = Path(client.download_artifacts(_run_id(by_tile.stdout), "evaluation/oof/report.html")).read_text()
    assert "tile-level split: optimistic" in page


@pytest.mark.slow
def test_each_site_of_tcga_is_left_out_in_turn(work: Path, histo_here: Histo, real_data: Path) -> None:
    """The classes are made up from the place of the tile: eight tiles of four patients have none of their own."""
    Path("halves.yaml").write_text("upper: [2, 7]\nlower: [3, 8, 9]\n")
    source = str(real_data / "tcga_names" / "BLOCKS_NORM_MACENKO")
    asked = ["cv", "--data", source, "--groups", "tcga", "--labels", r"re:,(\d)", "--classes", "halves.yaml", *_QUICK]
    done = histo_here(*asked, "--folds", "site")
    assert done.returncode == 0, done.stderr
    assert "kept together by the split: the site, 2 sites, each on one side only" in done.stdout
    assert "classes: 2 is upper, 7 is upper, 3 is lower, 8 is lower, 9 is lower" in done.stdout
    assert _folds(MlflowClient(), _run_id(done.stdout)).tolist() == [1, 1, 1, 1, 1, 1, 2, 2]
    assert "(classes: 2 is upper" in _card_and_facts("the site, 2 sites")[0]
    by_patient = histo_here(*asked, "--folds", "4")
    assert "the patient, 4 patients, each on one side only; not site (2 of them), too few" in by_patient.stdout
    run = _run_id(done.stdout)
    redrawn = histo_here("report", run)
    assert redrawn.returncode == 0, redrawn.stderr
    assert "no tiles are shown" not in redrawn.stdout, "the options of the run are asked for the tiles again"
