"""The test set is watched and never selected on: nothing but scoring reads it, and nothing that is decided depends on it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from histo_mlflow.errors import TilesChangedError
from histo_mlflow.evaluation.costs import default_costs
from histo_mlflow.jobs.train import Train
from histo_mlflow.learning.ranks import ALONE
from histo_mlflow.learning.reports import EpochReport
from histo_mlflow.models.backbones import DEFAULT_BACKBONE
from histo_mlflow.models.weights import InitialWeights
from histo_mlflow.options import build, option_fields
from histo_mlflow.pipeline.inputs import LearningInputs
from histo_mlflow.pipeline.names import RunName
from histo_mlflow.pipeline.record import RecordedSplit, record_split
from histo_mlflow.pipeline.session import Session
from histo_mlflow.pipeline.split import run_split
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.splits import hold_out
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store
from tests.conftest import SIZE_PX, save_npz

pytestmark = pytest.mark.usefixtures("small_network")

_OPTIONS = {"epochs": 3, "batch_size": 9, "aug_cutoff": 2, "learning_rate": 3e-4}


class _Watched(np.ndarray):
    """Pixels that count how often they are read."""

    n_reads = 0

    def __getitem__(self, key: Any) -> Any:
        _Watched.n_reads += 1
        return np.asarray(super().__getitem__(key))


def _fit(tiles: TileSet, test: TileSet | None, **options: Any) -> tuple[Any, list[dict[str, float]]]:
    config = build(Train, {**_OPTIONS, **options})
    seen: list[dict[str, float]] = []

    def note(report: EpochReport) -> None:
        seen.append({"val": report.val.loss, "test": report.test.loss if report.test else 0.0})

    inputs = _inputs(tiles, test)
    return run_split(inputs, hold_out(tiles, config.split, seed=0), config.recipe, on_epoch=note), seen


def _inputs(tiles: TileSet, test: TileSet | None = None) -> LearningInputs:
    return LearningInputs(tiles, test, InitialWeights(DEFAULT_BACKBONE, None, "none"), default_costs(tiles.classes))


def test_weights_and_selection_do_not_depend_on_the_test_set(tiny_tiles: TileSet) -> None:
    options = {"patience": 2, "ema_decay": 0.5, "class_weights": "balanced"}
    other = draw_demo(n_tiles=18, tile_size_px=SIZE_PX, seed=3)
    hostile = replace(other, labels=(other.labels + 1) % 9)
    (alone, _), (watched, seen), (misled, worse) = (_fit(tiny_tiles, test, **options) for test in (None, other, hostile))
    assert [each["test"] for each in seen] != [each["test"] for each in worse], "the two sets would not tell"
    for result in (watched, misled):
        assert result.best == alone.best
        for name, tensor in alone.network.state_dict().items():
            assert tensor.equal(result.network.state_dict()[name]), name
    assert 1 + int(np.argmin([each["val"] for each in seen])) == watched.best.best_epoch


def test_the_test_set_is_read_when_it_is_scored_and_never_while_something_is_learnt_or_decided(
    tiny_tiles: TileSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each epoch reads it once for the observer, after the validation that decides; the end reads it once more."""
    test = draw_demo(n_tiles=18, tile_size_px=SIZE_PX, seed=3)
    watched = replace(test, images=test.images.view(_Watched))
    monkeypatch.setattr(_Watched, "n_reads", 0)
    read_while_learning: list[int] = []
    step = torch.optim.AdamW.step

    def note_reads(*args: Any, **kwargs: Any) -> Any:
        read_while_learning.append(_Watched.n_reads)
        return step(*args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", note_reads)
    _fit(tiny_tiles, watched)
    n_epochs, n_batches = _OPTIONS["epochs"], 1  # of 18 tiles
    n_steps = len(read_while_learning) // n_epochs
    assert read_while_learning == [epoch * n_batches for epoch in range(n_epochs) for _ in range(n_steps)]
    assert _Watched.n_reads == (n_epochs + 1) * n_batches


def test_what_is_stored_with_the_model_is_computed_without_the_test_set(store: Store, tiny_tiles: TileSet) -> None:
    config = build(Train, {**_OPTIONS, "calibration": "temperature"})
    other = draw_demo(n_tiles=18, tile_size_px=SIZE_PX, seed=3)
    alone, watched = (_record_in_a_run(store, tiny_tiles, test, config) for test in (None, other))
    assert watched.test is not None
    assert watched.facts == alone.facts


def _record(run: Any, tiles: TileSet, test: TileSet | None, config: Train) -> RecordedSplit:
    session = Session(run, ALONE, _inputs(tiles, test), config, RunName("t"))
    return record_split(session, hold_out(tiles, config.split, seed=0), title="t")


def _record_in_a_run(store: Store, tiles: TileSet, test: TileSet | None, config: Train) -> RecordedSplit:
    with open_run(store, "train", tags={}) as run:
        return _record(run, tiles, test, config)


def test_no_option_names_what_is_selected_on() -> None:
    """`test_data` is the only option through which a test set comes in; `test_groups` says who is who in it, for intervals."""
    about_test = [name for name, option in option_fields(Train).items() if "test" in name.split("_")]
    assert about_test == ["test_data", "test_groups"]


def test_a_training_whose_tiles_are_changed_meanwhile_stops_with_a_line(work: Path, tiny_tiles: TileSet) -> None:
    file = save_npz(work / "a.npz", tiny_tiles)
    tiles = open_tiles(file)
    config = build(Train, {**_OPTIONS, "epochs": 2})
    seen: list[int] = []

    def change(report: EpochReport) -> None:
        seen.append(report.epoch)
        with file.open("r+b") as opened:
            opened.seek(20_000)
            opened.write(bytes(100_000))

    with pytest.raises(TilesChangedError, match=r"a\.npz was changed while it was in use; .*--resume RUN_ID"):
        run_split(_inputs(tiles), hold_out(tiles, config.split, seed=0), config.recipe, on_epoch=change)
    assert seen == [1]
