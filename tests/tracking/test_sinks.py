"""What every place that runs are written to must do; a new one is added to `PLACES`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from mlflow.entities import Run as KeptRun

from histo_mlflow.tracking.journal import Journal
from histo_mlflow.tracking.options import MirrorOptions
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.sinks import Mirror, MirroredRun, Sink
from histo_mlflow.tracking.store import Store, open_store
from histo_mlflow.tracking.wandb_sink import Wandb, _Place
from histo_mlflow.tracking.writes import Deletion, End, File, Metrics, Params, Tags, Target, Tiles, Write
from tests.wandb_records import read_all

wandb = pytest.importorskip("wandb")


@dataclass
class Kept:
    """What a place has kept of a run."""

    params: dict[str, str]
    epochs: dict[int, float]
    of_the_run: float
    files: set[str]
    is_finished: bool


@dataclass
class Place:
    """A place under test: its sink of a run, and what it has kept of it once the run has ended."""

    sink: Sink
    read: Callable[[], Kept]


def _mlflow(store: Store, work: Path) -> Place:
    run_id = store.client.create_run("0").info.run_id

    def read() -> Kept:
        run = store.client.get_run(run_id)
        epochs = {each.step: each.value for each in store.client.get_metric_history(run_id, "val/loss")}
        files = {item.path for item in store.client.list_artifacts(run_id, "figures")}
        return Kept(run.data.params, epochs, run.data.metrics["best/val_loss"], files, run.info.status == "FINISHED")

    return Place(Journal(Target(store.client, run_id)), read)


def _wandb(store: Store, work: Path) -> Place:
    kept = store.client.create_run("0")
    run_id = kept.info.run_id

    def read() -> Kept:
        wandb.teardown()  # all is written then, and the next test gets a folder of its own
        recorded = read_all(work)[run_id]
        epochs = {row["epoch"]: row["val/loss"] for row in recorded.history if "val/loss" in row}
        files = {f"{name}.png" for row in recorded.history for name, value in row.items() if isinstance(value, dict)}
        params = {name: str(recorded.config[name]) for name in ("epochs", "data")}
        return Kept(params, epochs, recorded.summary["best/val_loss"], files, recorded.exit_code == 0)

    return Place(MirroredRun(Wandb(), kept, store.uri), read)


PLACES = {"mlflow": _mlflow, "wandb": _wandb}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, store: Store, work: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("WANDB_MODE", "offline")
    return PLACES[request.param](store, work)


def _picture(work: Path) -> Path:
    figure = plt.figure(figsize=(1, 1))
    figure.savefig(work / "curves.png")
    plt.close(figure)
    return work / "curves.png"


def _writes(work: Path) -> list[Write]:
    """Return one write of each kind, and a second epoch."""
    (work / "state.pt").write_text("weights stay where they are")
    return [
        Params({"epochs": 2, "data": "postgresql://me:S3cretPw@host/db"}),
        Tags({"histo.seed": "0"}),
        Tiles("tiles train", "f" * 36, "tiles.npz", "{}", "train"),
        Metrics({"val/loss": 0.5}, 1, 1),
        Metrics({"val/loss": 0.25}, 2, 2),
        Metrics({"best/val_loss": 0.25}, 0, 3),
        File(str(_picture(work)), "figures"),
        File(str(work / "state.pt"), "checkpoints"),
        Deletion("checkpoints/state.pt"),
        End("FINISHED", 4),
    ]


def test_every_place_takes_every_kind_of_write_and_keeps_what_it_shows(place: Place, work: Path) -> None:
    for write in _writes(work):
        place.sink.write(write)
    kept = place.read()
    assert kept.params["epochs"] == "2"
    assert "S3cretPw" not in kept.params["data"]
    assert kept.epochs == {1: 0.5, 2: 0.25}
    assert kept.of_the_run == 0.25
    assert kept.files == {"figures/curves.png"}
    assert kept.is_finished


def test_metrics_that_are_sent_again_are_kept_once(place: Place, work: Path) -> None:
    epochs = [Metrics({"val/loss": 1 / epoch}, epoch, epoch) for epoch in (1, 2)]
    for write in (
        *epochs,
        *epochs,
        Metrics({"best/val_loss": 0.5}, 0, 3),
        Params({"epochs": 2, "data": "d"}),
        End("FINISHED", 4),
    ):
        place.sink.write(write)
    assert place.read().epochs == {1: 1.0, 2: 0.5}


class _Breaking(Mirror):
    """Keeps `n` things, the beginning of a run among them, and then breaks."""

    name, tag, suffixes = "Breaking", "broken.address", frozenset({".png"})

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n, self.kept = n, list[object]()

    def open(self, kept: KeptRun, _: str) -> tuple["_Breaking", str]:
        self.write(kept)
        return self, "somewhere"

    def write(self, write: object) -> None:
        if len(self.kept) == self.n:
            raise OSError(28, "No space left\non device")
        self.kept.append(write)

    def close(self, error: Exception) -> None:
        raise error


@pytest.mark.parametrize("n", range(6))
def test_a_mirror_that_breaks_costs_one_warning_and_nothing_else(
    store: Store, work: Path, caplog: pytest.LogCaptureFixture, n: int
) -> None:
    other = _Breaking(99)
    with open_run(Store(store.uri, store.experiment_id, (_Breaking(n), other)), "one") as run:
        run.log_params({"epochs": 1})
        run.log_metrics({"val/loss": 0.5}, step=1)
        run.log_file(_picture(work))
    kept = store.client.get_run(run.id)
    assert (kept.info.status, kept.data.params, kept.data.metrics) == ("FINISHED", {"epochs": "1"}, {"val/loss": 0.5})
    assert kept.data.tags.get("broken.address") == "somewhere"
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert f"histo mirror {run.id}" in warnings[0]
    assert "\n" not in warnings[0]
    kinds = [type(each) for each in other.kept]
    assert [kind for kind in kinds if kind is not Tags] == [KeptRun, Params, Metrics, File, End], "the other mirror goes on"


def test_the_options_say_where_runs_are_mirrored(store: Store) -> None:
    assert open_store().mirrors == open_store(MirrorOptions()).mirrors == ()
    assert [mirror.name for mirror in open_store(MirrorOptions(wandb=True)).mirrors] == ["W&B"]


def test_links_within_mlflow_lead_there_from_elsewhere_or_are_plain_words() -> None:
    described = "**No**\n\n[Report](#/experiments/0/runs/1/report.html?a=b) · [a\\] b](#/x)"
    assert _Place("MLflow: x", "http://host/").describe(described) == (
        "**No**\n\n[Report](http://host/#/experiments/0/runs/1/report.html?a=b) · [a\\] b](http://host/#/x)\n\nMLflow: x"
    )
    assert _Place("MLflow: x", "sqlite:///a.db").describe(described) == "**No**\n\nReport · a\\] b\n\nMLflow: x"
    assert _Place("MLflow: x", "sqlite:///a.db").describe("") == "MLflow: x"
