"""Nothing that is drawn or written for people may cost the model."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from histo_mlflow.errors import Interrupted, StoreError
from histo_mlflow.pipeline.contents import not_at_the_cost_of_the_model
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store
from tests.conftest import Histo


def test_a_picture_that_fails_leaves_a_warning_and_a_tag(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with open_run(store, "one") as run, not_at_the_cost_of_the_model(run, "curves.png"):
        raise ValueError("no such font\n  at all")
    found = store.client.get_run(run.id)
    assert found.info.status == "FINISHED"
    assert found.data.tags["histo.report"] == "failed: curves.png: ValueError: no such font at all"
    assert f"all else is kept. Once that is corrected: histo report {run.id}\n" in capsys.readouterr().err


@pytest.mark.parametrize("error", [StoreError("gone"), Interrupted("SIGINT"), KeyboardInterrupt()])
def test_what_is_no_matter_of_pictures_is_raised(store: Store, error: BaseException) -> None:
    with open_run(store, "one") as run, pytest.raises(type(error)), not_at_the_cost_of_the_model(run, "curves.png"):
        raise error


@pytest.mark.slow
def test_a_training_whose_every_picture_fails_has_its_model(
    work: Path, tiny_npz: Path, histo_here: Histo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("nothing can be drawn")

    drawn = ("pipeline.draw.draw_curves", "evaluation.report_sections.plots.draw_confusion")
    for name in (*drawn, "pipeline.draw.collect_album", "pipeline.report.fit_baselines"):
        monkeypatch.setattr(f"histo_mlflow.{name}", fail)
    done = histo_here("train", "--data", str(tiny_npz), "--weights", "none", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("could not be made (ValueError: nothing can be drawn)") == 4
    assert "A first version stays a candidate without it" in done.stderr
    version = MlflowClient().get_model_version("histo-b3", "1")
    kept = {item.path for item in MlflowClient().list_artifacts(str(version.run_id), "evaluation/val")}
    assert {"evaluation/val/per_class.csv", "evaluation/val/predictions.npz"} <= kept
