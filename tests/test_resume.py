"""Interrupted runs go on, and end as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow.entities import Run as KeptRun

from histo_mlflow.errors import OptionError, RequestError, SourceNotFoundError, WorkError
from histo_mlflow.jobs.cv import Cv, cv
from histo_mlflow.jobs.train import Train, train
from histo_mlflow.options import build
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.about import note, read_notes
from histo_mlflow.tracking.options import KeepingOptions
from histo_mlflow.tracking.runs import Run
from histo_mlflow.tracking.store import Store
from tests.conftest import Histo
from tests.learnings import assert_same_metrics, assert_same_weights, weights

OPTIONS: dict[str, Any] = {"weights": "none", "batch_size": 9, "aug_cutoff": 2, "ema_decay": 0.5, "register": False}


def _train(**values: Any) -> None:
    """Run `train` in this process, which costs no start-up."""
    given = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    train(build(Train, given, given=frozenset(given)))


def _spelled(options: dict[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def _part(run: KeptRun) -> str:
    """Return which part of a cross-validation a run is."""
    return f"fold {run.data.tags['histo.fold']}" if "histo.fold" in run.data.tags else "cv"


def _runs(store: Store, entry_point: str = "train") -> list[KeptRun]:
    """Runs of an entry point, the newest first."""
    return list(store.client.search_runs([store.experiment_id], f"tags.`histo.entry_point` = '{entry_point}'"))


def _assert_same_learning(store: Store, resumed: str, whole: str) -> None:
    assert_same_weights(store, resumed, whole)
    assert_same_metrics(store, resumed, whole)


def _start(work: Path, **options: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "histo_mlflow", "train", *_spelled(options)],
        cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ,
    )  # fmt: skip


def _kill_when(process: "subprocess.Popen[bytes]", is_time: Callable[[], bool]) -> bool:
    """Kill without notice at the moment that `is_time` says; return False if the process has ended before."""
    end = time.monotonic() + 120
    while not is_time():
        if process.poll() is not None:
            return False
        assert time.monotonic() < end, "the moment to kill never came"
        time.sleep(0.001)
    process.kill()
    process.wait()
    return True


def _is_writing(work: Path, pattern: str) -> bool:
    return any(path.name.startswith(".") for path in work.glob(f"mlruns/*/*/artifacts/checkpoints/{pattern}"))


def test_killed_while_writing_a_checkpoint_and_resumed(
    work: Path, tiny_npz: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"data": tiny_npz, "epochs": 3, **OPTIONS}
    _train(**options)
    (whole,) = _runs(store)

    process = _start(work, **options)

    def is_writing_the_second_state() -> bool:
        if not _is_writing(work, ".last.pt.draft"):  # asked first: the moment is short and the store slow
            return False
        runs = _runs(store)
        return bool(len(runs) == 2 and runs[0].data.metrics)

    assert _kill_when(process, is_writing_the_second_state)
    killed = _runs(store)[0].info.run_id
    with pytest.raises(RequestError, match="epochs was 3, now 4"):
        _train(resume=killed, epochs=4)

    note(Run(store, killed), {"torch": "2.0.0"})
    command = read_notes(Run(store, killed))["command"]
    capsys.readouterr()
    _train(resume=killed)
    assert "goes on with other versions: torch was 2.0.0, now 2" in capsys.readouterr().err
    (earlier,) = read_notes(Run(store, killed))["earlier"]
    assert (earlier["command"], earlier["torch"]) == (command, "2.0.0")
    assert [run.info.status for run in _runs(store)] == ["FINISHED", "FINISHED"]
    assert "error" not in store.client.get_run(killed).data.tags
    _assert_same_learning(store, killed, whole.info.run_id)
    with pytest.raises(RequestError, match="has finished"):
        _train(resume=killed)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_ten_random_moments_and_resumed_each_time(work: Path, tiny_npz: Path, store: Store) -> None:
    options = {"data": tiny_npz, "epochs": 14, **OPTIONS}
    _train(**options)
    (whole,) = _runs(store)
    chance = random.Random(0)
    process, n_killed = _start(work, **options), 0
    while n_killed < 10:
        while len(_runs(store)) < 2 or _runs(store)[0].info.status != "RUNNING":
            time.sleep(0.05)
        if n_killed % 2:
            # In the middle of writing the first or the second kind of file that comes.
            pattern = chance.choice([".last.pt.draft", ".epoch_*.draft", ".*.draft"])
            was_killed = _kill_when(process, lambda pattern=pattern: _is_writing(work, pattern))  # type: ignore[misc]
        else:
            moment = time.monotonic() + chance.uniform(0.5, 6)
            was_killed = _kill_when(process, lambda moment=moment: time.monotonic() > moment)  # type: ignore[misc]
        assert was_killed, f"it had finished after {n_killed} kills"
        n_killed += 1
        process = _start(work, resume=_runs(store)[0].info.run_id)
    assert process.wait(timeout=600) == 0
    resumed = _runs(store)[0]
    assert resumed.info.status == "FINISHED"
    _assert_same_learning(store, resumed.info.run_id, whole.info.run_id)


@pytest.mark.usefixtures("small_network")
def test_a_store_that_takes_no_model_at_the_end_gets_it_later(work: Path, tiny_npz: Path, store: Store) -> None:
    in_the_way = work / "mlruns" / "0" / "models"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("")  # no folder can be made here, whoever runs this
    with pytest.raises((WorkError, OSError)):
        _train(data=tiny_npz, epochs=2, **{**OPTIONS, "register": True})
    (failed,) = _runs(store)
    assert failed.info.status == "FAILED"
    assert failed.data.tags["error"]
    assert not store.client.search_model_versions("name='histo-b3'")
    in_the_way.unlink()
    _train(resume=failed.info.run_id)
    (version,) = store.client.search_model_versions("name='histo-b3'")
    assert version.run_id == failed.info.run_id
    assert store.client.get_run(failed.info.run_id).info.status == "FINISHED"
    assert [each.step for each in store.client.get_metric_history(failed.info.run_id, "val/loss")] == [1, 2]


@pytest.mark.usefixtures("small_network")
def test_what_cannot_be_resumed_is_refused_by_name(histo: Histo, tiny_npz: Path, tiny_tiles: TileSet, store: Store) -> None:
    _train(data=tiny_npz, test_data=tiny_npz, allow_leak="a test", epochs=1, **OPTIONS)
    run_id = _runs(store)[0].info.run_id
    other = tiny_npz.with_name("other.npz")
    np.savez(other, data=255 - tiny_tiles.images, labels=tiny_tiles.labels)
    store.client.set_terminated(run_id, "KILLED")
    for values, reason in (
        ({"data": other}, "data holds other tiles than the run began with"),
        ({"data": tiny_npz, "test_data": other}, "test_data holds other tiles"),
        ({"seed": 3}, "seed was 0, now 3"),
        ({"stain": "1-2"}, "stain was none, now 1-2"),
    ):
        with pytest.raises(RequestError, match=reason):
            _train(resume=run_id, **values)
        assert store.client.get_run(run_id).info.status == "KILLED"
    with pytest.raises(SourceNotFoundError, match="no run with this id"):
        _train(resume="0" * 32)
    kept = store.client.download_artifacts(run_id, "split.npz", str(tiny_npz.parent))
    split = dict(np.load(kept))
    np.savez(kept, **(split | {"val": split["val"][:-1]}))
    store.client.log_artifact(run_id, kept)
    with pytest.raises(RequestError, match="began with another split of these tiles"):
        _train(resume=run_id)
    bare = store.client.create_run("0", tags={"histo.entry_point": "train"}).info.run_id  # killed before it noted anything else
    store.client.set_terminated(bare, "FAILED")
    with pytest.raises(RequestError, match="has not noted its options; start a new run"):
        _train(resume=bare)
    with pytest.raises(RequestError, match="was not begun by cv"):
        cv(build(Cv, {"resume": run_id}))
    store.client.update_run(run_id, status="RUNNING")  # this process is its own, and lives
    done = histo("train", "--resume", run_id)
    assert done.returncode == 2
    assert f"is still going on (process {os.getpid()}" in done.stderr


@pytest.mark.slow
def test_a_cross_validation_goes_on_in_the_fold_that_was_interrupted(work: Path, tiny_npz: Path, store: Store) -> None:
    options = {"data": tiny_npz, "folds": 2, "epochs": 2, **OPTIONS}
    cv(build(Cv, {**options, "data": str(tiny_npz)}))
    whole = {_part(run): run.info.run_id for run in _runs(store, "cv")}

    process = subprocess.Popen(
        [sys.executable, "-m", "histo_mlflow", "cv", *_spelled(options)],
        cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ,
    )  # fmt: skip
    new: dict[str, str] = {}

    def is_in_the_second_fold() -> bool:
        new.update({_part(r): r.info.run_id for r in _runs(store, "cv") if r.info.run_id not in whole.values()})
        return "fold 2" in new and bool(store.client.get_run(new["fold 2"]).data.metrics)

    end = time.monotonic() + 120
    while not is_in_the_second_fold():
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    assert store.client.get_run(new["cv"]).info.status == "KILLED"

    cv(build(Cv, {"resume": new["cv"]}))
    assert len(_runs(store, "cv")) == 6, "no run was added"
    for name, run_id in new.items():
        assert store.client.get_run(run_id).info.status == "FINISHED"
        for metric in ("best/val_loss", "oof/loss"):
            expected = store.client.get_run(whole[name]).data.metrics.get(metric)
            assert store.client.get_run(run_id).data.metrics.get(metric) == expected
    for fold in ("fold 1", "fold 2"):
        _assert_same_learning(store, new[fold], whole[fold])


@pytest.mark.usefixtures("small_network")
def test_only_chosen_checkpoints_are_kept(tiny_npz: Path, store: Store) -> None:
    for keep, expected in (("best", set()), ("1", {"epoch_002.safetensors"})):
        _train(data=tiny_npz, epochs=2, keep_checkpoints=keep, **OPTIONS)
        names = {Path(item.path).name for item in store.client.list_artifacts(_runs(store)[0].info.run_id, "checkpoints")}
        assert names == {"best.safetensors", "last.pt", *expected}
    for unfit in ("some", "0", "-1"):
        with pytest.raises(OptionError, match=f"keep_checkpoints={unfit}"):
            KeepingOptions(keep_checkpoints=unfit)


@pytest.mark.usefixtures("small_network")
def test_learning_starts_from_any_model(work: Path, tiny_npz: Path, tiny_tiles: TileSet, store: Store) -> None:
    _train(data=tiny_npz, epochs=1, weights="none")
    first = _runs(store)[0].info.run_id
    few = work / "few.npz"
    rows = np.flatnonzero(tiny_tiles.labels < 3)
    names = np.array(["BACK", "ADI", "NEW"])  # two of the nine in another order, and one more
    np.savez(few, data=tiny_tiles.images[rows], labels=tiny_tiles.labels[rows], classes=names)
    best = weights(store, first, "best.safetensors")["backbone.classifier.1.weight"]
    for begun_from in ("models:/histo-b3@candidate", first, f"runs:/{first}/checkpoints/epoch_001.safetensors"):
        # With next to no learning rate the head stays what it was to begin with.
        _train(data=few, epochs=1, weights=begun_from, learning_rate=1e-9, register=False)
        newest = _runs(store)[0]
        said = read_notes(Run(store, newest.info.run_id))["weights"]
        assert said.startswith(f"{begun_from}; its head for ADI BACK")
        assert "of which BACK ADI taken over and NEW new" in said
        head = weights(store, newest.info.run_id, "best.safetensors")["backbone.classifier.1.weight"]
        torch.testing.assert_close(head[:2], best[[1, 0]], atol=1e-5, rtol=0)
    with pytest.raises(SourceNotFoundError, match="weights=models:/histo-b3/7 is not in the store"):
        _train(weights="models:/histo-b3/7")
