"""Fresh environments, as users make them; slow, for each installs several GB."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from histo_mlflow.tiles.demo import draw_demo
from tests.conftest import PROJECT, put_into_production, save_npz

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MANAGERS = {"pyenv": [], "uv": ["--env-manager", "uv"]}


def _run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PYTHONPATH", "VIRTUAL_ENV"))}
    return subprocess.run(
        command, cwd=cwd, env={**clean, "MLFLOW_DISABLE_TELEMETRY": "true", **environment},
        capture_output=True, text=True, timeout=1700, check=False,
    )  # fmt: skip


def new_environment(folder: Path, *packages: str) -> Path:
    """Make an environment with these packages and nothing else, and return where its programs are."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert uv
    subprocess.run([uv, "pip", "install", "--python", folder / "bin" / "python", "--quiet", *packages], check=True)
    return folder / "bin"


@pytest.mark.parametrize("manager", MANAGERS)
def test_mlflow_builds_the_environment_and_runs(tmp_path: Path, manager: str) -> None:
    if manager == "pyenv" and shutil.which("pyenv") is None:
        pytest.skip("pyenv is not installed")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", PROJECT, clone], check=True)
    programs = new_environment(tmp_path / "only-mlflow", "mlflow==3.17.2", *(["uv"] if manager == "uv" else []))
    done = _run(
        programs / "mlflow", "run", ".", "-e", "cv", *MANAGERS[manager], "-P", "folds=2", "-P", "epochs=1", cwd=clone,
        PATH=f"{programs}:{os.environ['PATH']}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    runs = MlflowClient(f"sqlite:///{clone / 'mlflow.db'}").search_runs(["0"])
    assert [run.info.status for run in runs] == ["FINISHED"] * 3


def test_model_answers_where_only_mlflow_and_torch_are(work: Path) -> None:
    save_npz(work / "tiles.npz", draw_demo(n_tiles=54, tile_size_px=32))
    base = [sys.executable, "-m", "histo_mlflow"]
    subprocess.run([*base, "train", "--data", "tiles.npz", "--weights", "none", "--epochs", "1"], cwd=work, check=True)
    put_into_production()
    subprocess.run([*base, "predict", "--data", "tiles.npz", "--output", "out.csv"], cwd=work, check=True)
    programs = new_environment(work / "bare", "mlflow==3.17.2", "torch==2.14.1")
    code = """
import importlib.util, mlflow, numpy as np, pandas as pd, torch
assert not any(importlib.util.find_spec(name) for name in ("histo_mlflow", "torchvision"))
tiles, expected = np.load("tiles.npz")["data"], pd.read_csv("out.csv").filter(like="prob_").to_numpy()
served, network = (f.load_model("models:/histo-b3/Production") for f in (mlflow.pyfunc, mlflow.pytorch))
for n in (1, 2, 7):
    answers = (served.predict(tiles[:n]).filter(like="prob_").to_numpy(),
               torch.softmax(network(torch.from_numpy(tiles[:n])), dim=1).detach().numpy())
    for answer in answers:
        assert np.abs(answer - expected[:n]).max() < 1e-4
        print("agrees", n, np.abs(answer - expected[:n]).max())
for model in (served.predict, lambda tiles: network(torch.from_numpy(tiles))):
    try:
        model((tiles / 255).astype(np.float32))
    except Exception as error:
        print("refuses floats:", str(error).partition(chr(10))[0][:120])
    else:
        raise SystemExit("floats were taken")
"""
    (work / "elsewhere.py").write_text(code)
    done = _run(programs / "python", "-P", work / "elsewhere.py", cwd=work, MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false")
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert done.stdout.count("agrees") == 6
    assert done.stdout.count("refuses floats") == 2


def test_cross_validation_of_real_tissue_learns(work: Path, real_data: Path) -> None:
    done = _run(
        Path(sys.executable).with_name("mlflow"), "run", PROJECT, "-e", "cv", "--env-manager", "local",
        "-P", f"data={real_data / 'pathmnist_test718_28.npz'}#test", "-P", "image_size=64", "-P", "epochs=30",
        "-P", "aug_cutoff=24", "-P", "weights=none", "-P", "folds=2",
        cwd=work, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}", OMP_NUM_THREADS=str(os.cpu_count()),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    runs = MlflowClient(f"sqlite:///{work / 'mlflow.db'}").search_runs(["0"], "tags.`histo.entry_point` = 'cv'")
    accuracies = [run.data.metrics["oof/accuracy"] for run in runs if "oof/accuracy" in run.data.metrics]
    assert len(accuracies) == 1
    assert np.isfinite(accuracies[0])
    assert accuracies[0] > 0.6
