"""The way of versions into Production and back, through the command line on a real store."""

import concurrent.futures
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from histo_mlflow.errors import OptionError, RequestError
from histo_mlflow.jobs.promote import Promote, promote
from histo_mlflow.options import build
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tracking.decisions import FORCED, Decision, carry_out, read_history
from histo_mlflow.tracking.production import production_version
from histo_mlflow.tracking.store import open_store
from tests.colour_reader import CLASSES, register
from tests.conftest import Histo, put_into_production, save_npz
from tests.servers import tracking_server


@pytest.fixture
def tiles(work: Path) -> str:
    """300 tiles of 32 px, each a little brighter in the channel of its class."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    base = np.full((300, 1, 1, 3), 100) + 30 * np.eye(3)[labels][:, None, None] + rng.normal(0, 8, (300, 1, 1, 3))
    images = np.clip(base + rng.normal(0, 4, (300, 32, 32, 3)), 0, 255).astype(np.uint8)
    np.savez(work / "labelled.npz", data=images, labels=labels, classes=np.array(CLASSES))
    return "labelled.npz"


def without_blue(tiles: str) -> str:
    """Write the tiles of the other classes to a file, and return its name."""
    with np.load(tiles) as all_tiles:
        rows = all_tiles["labels"] < 2
        np.savez("without_blue.npz", data=all_tiles["data"][rows], labels=all_tiles["labels"][rows], classes=np.array(CLASSES))
    return "without_blue.npz"


def _names() -> dict[str, float]:
    """Return by address what the model that it names says of one grey tile: each version says something else."""
    grey = np.full((1, 32, 32, 3), 100, np.uint8)
    return {
        end: float(mlflow.pyfunc.load_model(f"models:/histo-b3{end}").predict(grey)["prob_red"][0])
        for end in ("/Production", "@champion", "@Production")
    }


def _in_production(version: str) -> None:
    expected = float(
        mlflow.pyfunc.load_model(f"models:/histo-b3/{version}").predict(np.full((1, 32, 32, 3), 100, np.uint8))["prob_red"][0]
    )
    assert _names() == dict.fromkeys(("/Production", "@champion", "@Production"), expected)


@pytest.fixture(params=["SQLite", "server"])
def kept(request: pytest.FixtureRequest, work: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where runs and versions are kept: in a file of the folder, or by a real server."""
    if request.param == "SQLite":
        yield
        return
    with tracking_server(work) as address:
        mlflow.set_tracking_uri(address)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "histology")
        yield


def test_the_story(work: Path, kept: None, tiles: str, histo_here: Histo) -> None:
    first, worse, better, odd = (register(bias) for bias in (1.5, 3.0, 0.0, 9.0))
    _in_production(first)

    done = histo_here("promote", "--version", worse)
    assert done.returncode == 2
    assert "only a comparison replaces it" in done.stderr

    done = histo_here("promote", "--version", worse, "--test-data", tiles)
    assert done.returncode == 1, "a script can tell a refusal"
    assert re.search(r"NOT MET: balanced accuracy -0\.\d+", done.stderr)
    assert "decision 1 on this set: its error may be 2.500%" in done.stdout
    assert "you have 300; needed are about 2,200 tiles" in done.stdout
    _in_production(first)

    done = histo_here("promote", "--version", better, "--test-data", without_blue(tiles))
    assert done.returncode == 1
    assert "too few tiles of blue (0 tiles): each class needs 5 at least" in done.stderr
    assert "nothing was scored" in done.stderr

    done = histo_here("promote", "--run", MlflowClient().get_model_version("histo-b3", better).run_id, "--test-data", tiles)
    assert done.returncode == 0, done.stderr
    assert "decision 2 on this set: its error may be 1.250%" in done.stdout
    assert f"promoted: version {better}" in done.stdout
    _in_production(better)

    assert histo_here("promote", "--version", odd, "--force", "true").returncode == 2
    done = histo_here("promote", "--version", odd, "--force", "true", "--reason", "the scanner changed")
    assert done.returncode == 0, done.stderr
    _in_production(odd)

    done = histo_here("rollback", "--reason", "reads everything as red")
    assert done.returncode == 0, done.stderr
    _in_production(better)

    history = read_history(open_store(), "histo-b3")
    assert [(each.what, each.version, each.incumbent) for each in history] == [
        ("first", first, None), ("refused", worse, first), ("refused", better, first), ("promoted", better, first),
        ("forced", odd, better), ("rolled back", better, odd),
    ]  # fmt: skip
    assert history[1].evidence["n_tiles"] == 300
    assert history[1].evidence["differences"]["balanced_accuracy"]["high"] < 0
    decided = [history[1], history[3]]
    assert [each.evidence["looks"] for each in decided] == [2, 4]
    assert [(each.evidence["bar"]["look"], each.evidence["bar"]["alpha"]) for each in decided] == [(1, 0.025), (2, 0.0125)]
    decision = json.loads(Path(MlflowClient().download_artifacts(str(decided[1].run), "decision.json")).read_text())
    assert decision["version"] == better
    assert decision["reason"] == decided[1].reason

    done = histo_here("history")
    assert done.returncode == 0, done.stderr
    for words in ("first", "refused", "promoted", "forced", "rolled back", "the scanner changed", "reads everything as red"):
        assert words in done.stdout
    assert f"in Production: version {better}" in done.stdout
    assert "margin=0.01, loss_margin=0.05, class_margin=0.05; decision 2 on its set, error 1.250%" in done.stdout
    assert "TAMPERED" not in done.stdout


def test_bad_requests(work: Path, histo_here: Histo) -> None:
    for arguments, words in (
        (["promote"], "either version=N or run=ID"),
        (["promote", "--version", "7"], "version=7"),
        (["history"], "nothing is registered"),
        (["rollback"], "nothing is registered"),
        (["promote", "--version", "1", "--margin", "-1"], "margin=-1"),
    ):
        done = histo_here(*arguments)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
    register(0.0)
    done = histo_here("rollback")
    assert done.returncode == 2
    assert "nothing to go back to" in done.stderr
    assert "already" in histo_here("promote", "--version", "1").stderr


def test_a_first_version_that_was_objected_to_needs_a_reason(work: Path) -> None:
    version = register(0.0, objection="no better than chance")
    with pytest.raises(OptionError, match="no better than chance"):
        promote(build(Promote, {"version": version}))
    assert production_version(MlflowClient(), "histo-b3") is None
    assert promote(build(Promote, {"version": version, "force": True, "reason": "a demonstration"})).version == version
    assert production_version(MlflowClient(), "histo-b3") == version


def test_two_promotions_at_once_have_one_winner(work: Path) -> None:
    versions = [register(float(k)) for k in range(3)]
    name, present = "histo-b3", versions[0]
    client = MlflowClient()
    for _ in range(20):
        rivals = [version for version in versions if version != present]

        def promote(version: str, before: str = present) -> bool:
            try:
                carry_out(open_store(), name, Decision(FORCED, version, before, "a race"))
            except RequestError:
                return False
            return True

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            won = list(pool.map(promote, rivals))
        assert sorted(won) == [False, True]
        present = rivals[won.index(True)]
        assert production_version(client, name) == present
        found = client.search_model_versions("name = 'histo-b3'")
        assert [str(each.version) for each in found if each.current_stage == "Production"] == [present]
        aliases = client.get_registered_model(name).aliases
        assert (str(aliases["champion"]), str(aliases["Production"])) == (present, present)
    moves = [each for each in read_history(open_store(), name) if each.moves_production]
    assert len(moves) == 21
    assert all(later.incumbent == earlier.version for earlier, later in pairwise(moves))


@pytest.mark.usefixtures("small_network")
def test_training_with_a_test_set_passes_the_gate(work: Path, tiny_npz: Path, histo_here: Histo) -> None:
    save_npz(work / "external.npz", draw_demo(n_tiles=54, tile_size_px=32, seed=5))
    short = ["train", "--data", str(tiny_npz), "--weights", "none", "--epochs", "1", "--test-data", "external.npz"]
    assert histo_here(*short).returncode == 0
    put_into_production()
    done = histo_here(*short, "--seed", "1", "--margin", "0.9", "--loss-margin", "9", "--class-margin", "1")
    assert done.returncode == 0, done.stderr
    guess, first, second = read_history(open_store(), "histo-b3")
    assert (guess.what, first.what) == ("refused", "forced")
    assert (second.what, second.version, second.incumbent) == ("promoted", "2", "1"), done.stdout
    assert second.evidence["n_tiles"] == 54
    run = MlflowClient().get_run(str(second.run))
    assert run.data.tags["histo.entry_point"] == "train"
    assert run.data.tags["histo.test_looks"] == "4", "an epoch, its report and two models at the gate"
    done = histo_here(*short, "--seed", "2", "--margin", "0", "--loss-margin", "0", "--class-margin", "0")
    assert done.returncode == 0, "a refusal is no failure of the training"
    assert "REFUSED" in done.stdout
    assert production_version(MlflowClient(), "histo-b3") == "2"
