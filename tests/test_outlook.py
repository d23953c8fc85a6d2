"""What the terminal says of a run beside its figures."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from histo_mlflow.pipeline.outlook import describe_file, describe_page, how_to_go_on
from histo_mlflow.tracking.runs import Run, open_run
from histo_mlflow.tracking.store import Store


def test_a_page_is_named_with_what_shows_it(store: Store, work: Path) -> None:
    with open_run(store, "one") as run:
        run.write("page.html", "x")
    page = f"#/experiments/0/runs/{run.id}?workflowType=machine_learning"
    mlflow.set_tracking_uri(store.uri)
    assert describe_page(run) == f"mlflow ui    then http://127.0.0.1:5000/{page}"
    assert Path(describe_file(run, "page.html")).read_text() == "x"
    elsewhere = Store("sqlite:////other/mlflow.db")
    there = Run(elsewhere, run.id)
    there.__dict__["experiment_id"] = "0"
    assert describe_page(there).startswith(
        "mlflow ui --backend-store-uri sqlite:////other/mlflow.db    then http://127.0.0.1:5000/#/"
    )
    served = Run(Store("https://me:S3cretPw@host/mlflow/"), run.id)
    served.__dict__["experiment_id"] = "7"
    assert describe_page(served) == f"https://me:***@host/mlflow/{page.replace('/0/', '/7/')}"


def test_how_it_goes_on_depends_on_what_has_begun_it(store: Store) -> None:
    run = Run(store, "3f2b1c90" + "0" * 24)
    assert how_to_go_on("cv", run, is_project=False).endswith("to go on: histo cv --resume 3f2b1c90")
    assert how_to_go_on("cv", run, is_project=True).endswith("to go on: mlflow run . -e cv -P resume=3f2b1c90")


def test_after_ctrl_c_it_says_the_command_that_goes_on(work: Path, tiny_npz: Path) -> None:
    command = [sys.executable, "-m", "histo_mlflow", "train", "--data", str(tiny_npz), "--weights", "none", "--epochs", "40"]
    command += ["--backbone", "lite0", "--register", "false", "--keep-checkpoints", "best"]
    process = subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None
    said, end = [], time.monotonic() + 120
    for line in process.stdout:
        said.append(line)
        if line.startswith("epoch "):
            process.send_signal(signal.SIGINT)
            break
        assert time.monotonic() < end
    rest, errors = process.communicate(timeout=60)
    (run_id,) = re.findall(r"^run (\w{8}): tiny lite0 ", "".join(said), re.MULTILINE)
    assert f"what was finished is kept; to go on: histo train --resume {run_id}" in rest
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "Error: interrupted by SIGINT; the open runs were ended as KILLED"
    assert re.search(r"^epoch +1/40 \| .* \| \d+ (s|min) left", "".join(said), re.MULTILINE)


@pytest.mark.usefixtures("small_network")
def test_a_run_that_went_wrong_for_good_is_not_to_be_resumed(tiny_npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import histo_mlflow
    from histo_mlflow.errors import NonFiniteLossError

    with pytest.raises(NonFiniteLossError):
        histo_mlflow.train(data=str(tiny_npz), weights="none", epochs=2, learning_rate=1e9, clip_norm=0.0, register=False)
    assert "to go on" not in capsys.readouterr().out
    assert "to go on" not in capsys.readouterr().out
    assert [each.goes_on_with for each in histo_mlflow.runs()] == [""]
