import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from histo_mlflow.errors import OptionError, RequestError, TileFormatError
from histo_mlflow.tiles.tile_set import TileSet, check_classes
from histo_mlflow.tracking.acceptance import CLASS_FIGURES, check_classes_accepted, check_options_accepted, class_metric
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store
from tests.conftest import Histo

REFUSED = ["..", ".", "x" * 251, "a+b", "a(b)", "a/../b", "/a", "a\tb", "😀", "ट्यूमर", "", "a/"]
TAKEN = ["TUM", "间质", "Größe x", "a:b", "-", "x" * 200, "a.b", "..."]


@pytest.mark.parametrize("name", REFUSED)
def test_a_class_name_that_the_store_refuses_is_refused_before(store: Store, name: str) -> None:
    with open_run(store, "one") as run, pytest.raises(Exception, match=r"(?i)name|length"):
        run.log_metrics({class_metric(split, CLASS_FIGURES[1], name): 0.5 for split in ("val", "test", "oof")})
    with pytest.raises(RequestError, match=r"tiles\.npz has the class name .*rename the class") as refused:
        check_classes_accepted(["TUM", name], where="tiles.npz")
    assert len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)


def test_a_class_name_that_the_store_takes_is_taken(store: Store) -> None:
    check_classes_accepted(TAKEN, where="tiles.npz")
    with open_run(store, "one") as run:
        run.log_metrics(
            {class_metric(split, figure, n): 0.5 for n in TAKEN for split in ("val", "oof") for figure in CLASS_FIGURES}
        )
    assert len(store.client.get_run(run.id).data.metrics) == 4 * len(TAKEN)


@given(st.text(st.characters(), min_size=1, max_size=8))
def test_tiles_have_no_class_name_that_the_store_refuses_but_dots(name: str) -> None:
    try:
        names = check_classes(["TUM", name], where="t")
    except TileFormatError:
        return
    if not re.fullmatch(r"\.{1,2}", name):
        check_classes_accepted(names, where="t")


def test_a_model_name_that_only_some_databases_take_is_refused() -> None:
    check_options_accepted({"model_name": "x" * 256, "data": "y" * 6000})
    for name in (".", "..", "x" * 257):
        with pytest.raises(OptionError, match="model_name="):
            check_options_accepted({"model_name": name})


def test_an_option_that_would_be_cut_off_is_refused() -> None:
    with pytest.raises(OptionError, match=r"weights='xxx.*6001 characters, and MLflow keeps 6000"):
        check_options_accepted({"weights": "x" * 6001})


@pytest.mark.parametrize(
    ("classes", "options"),
    [
        (["ADI", ".."], []),
        (["ADI", "x" * 240], []),
        (["ADI", "TUM"], ["--model-name", "x" * 300]),
        (["ADI", "TUM"], ["--model-name", ".."]),
        (["ADI", "TUM"], ["--weights", "x" * 7000]),
    ],
)
@pytest.mark.parametrize("command", ["train", "cv"])
def test_no_training_begins_whose_end_would_be_refused(
    work: Path, tiny_tiles: TileSet, histo_here: Histo, command: str, classes: list[str], options: list[str]
) -> None:
    rows = np.flatnonzero(tiny_tiles.labels < 2)
    np.savez(work / "two.npz", data=tiny_tiles.images[rows], labels=tiny_tiles.labels[rows], classes=np.array(classes))
    done = histo_here(command, "--data", "two.npz", "--weights", "none", *options)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 500
    assert MlflowClient().search_runs(["0"]) == [], "refused before a run begins"


def test_a_reason_that_a_decision_can_not_hold_is_refused(work: Path, histo_here: Histo) -> None:
    done = histo_here("rollback", "--reason", "x" * 1001)
    assert done.returncode == 2
    assert "at most 1000" in done.stderr
    assert len(done.stderr) < 300
