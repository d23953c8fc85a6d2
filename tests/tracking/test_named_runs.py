"""Runs named in short, and listed."""

import itertools
from datetime import datetime
from pathlib import Path

import pytest

import histo_mlflow
from histo_mlflow.errors import RequestError, SourceNotFoundError
from histo_mlflow.jobs.evaluate import Evaluate
from histo_mlflow.jobs.promote import Promote
from histo_mlflow.jobs.report import Report
from histo_mlflow.jobs.train import Train
from histo_mlflow.options import build
from histo_mlflow.tracking import named_runs
from histo_mlflow.tracking.listed_runs import FIGURE, HIGH, LOW, list_runs
from histo_mlflow.tracking.named_runs import whole_id, with_whole_names
from histo_mlflow.tracking.registry import MODEL_URI_TAG
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store, open_store
from tests.conftest import Histo, tags_of_process


def _begun(store: Store, name: str, job: str, **tags: str) -> str:
    with open_run(store, name, tags={"histo.entry_point": job, **tags}) as run:
        return run.id


def test_the_first_characters_do_where_one_run_has_them(store: Store) -> None:
    ids = [_begun(store, f"run {k}", "train") for k in range(20)]
    first = ids[0]
    n = next(n for n in range(4, 33) if sum(each.startswith(first[:n]) for each in ids) == 1)
    assert whole_id(store.client, first[:n], asked="run=x") == first
    with pytest.raises(SourceNotFoundError, match="run=zzzz: no run has an id that begins so; `histo runs`"):
        whole_id(store.client, "zzzz", asked="run=zzzz")


def test_of_several_the_candidates_are_told_on_one_line(store: Store) -> None:
    ids = sorted(_begun(store, f"run {k}", "train") for k in range(20))  # of sixteen first characters one is there twice
    short = next(one[0] for one, other in itertools.pairwise(ids) if one[0] == other[0])
    with pytest.raises(
        RequestError, match=rf"several runs have an id that begins so: {short}\w+ \(run \d+\), .*give more of it"
    ) as caught:
        whole_id(store.client, short, asked=f"run={short}")
    assert "\n" not in str(caught.value)


def test_last_is_the_newest_that_fits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = _begun(store, "trained", "train", **{MODEL_URI_TAG: "models:/m-1"})
    crossed = _begun(store, "crossed", "cv")
    tags = {"histo.entry_point": "cv", "histo.fold": "1"}
    with (
        open_run(store, "parent", tags={"histo.entry_point": "cv", MODEL_URI_TAG: "models:/m-2"}) as parent,
        open_run(store, "fold 1", parent=parent, tags=tags),
    ):
        pass
    judged = _begun(store, "judged", "evaluate")
    assert with_whole_names(build(Report, {"run": "last"}), "report").run == judged
    several = with_whole_names(build(Report, {"run": trained, "others": f"{crossed} last"}), "report")
    assert (several.run, several.others) == (trained, f"{crossed} {judged}")
    assert with_whole_names(build(Train, {"resume": "last"}), "train").keeping.resume == trained
    asked = with_whole_names(build(Evaluate, {"model": "last", "data": "x"}, given=frozenset({"model"})), "evaluate")
    assert (asked.scoring.model, asked.given) == (parent.id, {"model"})
    asked = with_whole_names(
        build(Evaluate, {"model": "runs:/last/checkpoints/epoch_001.safetensors", "data": "x"}), "evaluate"
    )
    assert asked.scoring.model == f"runs:/{parent.id}/checkpoints/epoch_001.safetensors"
    assert with_whole_names(build(Promote, {"run": crossed[:12]}), "promote").run == crossed
    monkeypatch.setenv("MLFLOW_RUN_ID", judged)  # as `mlflow run -e report` would have begun it
    assert with_whole_names(build(Report, {"run": "last"}), "report").run == parent.id


def test_what_is_no_run_stays_as_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_runs, "whole_id", lambda *_, **__: pytest.fail("nothing is to be looked for"))
    Path("deadbeef").touch()
    for value in ("models:/histo-b3/Production", "some/path", "deadbeef", "auto", "none", "imagenet"):
        assert with_whole_names(build(Train, {"weights": value}), "train").recipe.network.weights == value


def test_there_may_be_none_yet(histo_here: Histo, store: Store) -> None:
    done = histo_here("report", "last")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("run=last: there is no run in this store yet")
    assert "no runs yet" in histo_here("runs").stdout


def test_a_list_says_how_each_stands_and_what_goes_on(histo_here: Histo, store: Store) -> None:
    with open_run(store, "crc5 lite0 head val 0.810", tags={"histo.entry_point": "train"}) as run:
        run.log_metrics({FIGURE: 0.81, LOW: 0.78, HIGH: 0.84})
    with pytest.raises(ValueError, match="no"), open_run(store, "failed", tags={"histo.entry_point": "cv"}) as failed:
        raise ValueError("no")
    dead = {"histo.entry_point": "train", **tags_of_process(started="1")}
    lost = store.client.create_run(store.experiment_id, tags=dead, run_name="lost").info.run_id
    other = open_store(experiment="other sets")
    _begun(other, "elsewhere", "evaluate")
    listed = {each.name: each for each in histo_mlflow.runs(limit=10)}
    assert list(listed) == ["elsewhere", "lost", "failed", "crc5 lite0 head val 0.810"]
    assert [each.state for each in listed.values()] == ["FINISHED", "LOST", "FAILED", "FINISHED"]
    assert listed["crc5 lite0 head val 0.810"].figure == "0.810 (0.780 to 0.840)"
    assert listed["failed"].goes_on_with == f"histo cv --resume {failed.id[:8]}"
    assert listed["lost"].goes_on_with == f"histo train --resume {lost[:8]}"
    assert listed["elsewhere"].experiment == "other sets"
    assert isinstance(listed["lost"].begun, datetime)
    assert store.client.get_run(lost).info.status == "RUNNING", "who lists changes nothing"
    assert [each.name for each in list_runs(store, limit=1)] == ["elsewhere"]
    assert [each.name for each in list_runs(store, limit=1, experiment="Default")] == ["lost"]
    printed = histo_here("runs").stdout
    assert f"{run.id[:8]}  crc5 lite0 head val 0.810" in printed
    assert "mlflow ui http://127.0.0.1:5000/#/experiments/" in printed
    with pytest.raises(SourceNotFoundError, match=r"there are .*Default"):
        list_runs(store, limit=1, experiment="nothing")
