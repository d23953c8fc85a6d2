"""The package as others get it: built, installed into an environment of its own, used in an empty folder."""

import os
import re
import subprocess
import sys
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

import pytest

from histo_mlflow.tiles.demo import draw_demo
from tests.conftest import PROJECT, save_npz
from tests.test_environments import new_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "build", "--wheel", "--quiet", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder]
    subprocess.run([*command, PROJECT], check=True)
    return next(folder.glob("*.whl"))


def test_it_holds_the_package_and_the_search_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        facts = message_from_string(archive.read(next(name for name in names if name.endswith("METADATA"))).decode())
    assert {name.split("/")[0] for name in names} == {
        "histo_mlflow",
        next(name for name in names if "dist-info" in name).split("/")[0],
    }
    expected = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "histo_mlflow").rglob("*") if path.suffix in _KINDS}
    expected |= {f"histo_mlflow/tuning/{path.name}" for path in (PROJECT / "tuning").glob("*.py")}
    assert expected <= set(names)
    assert "histo_mlflow/py.typed" in names
    assert facts["Author"] == "The histo-mlflow developers"
    assert len(facts.get_all("Classifier", [])) > 5
    assert len(facts.get_all("Project-URL", [])) >= 3
    assert facts["Requires-Python"] == ">=3.11"
    page = facts.get_payload()
    assert isinstance(page, str)
    targets = re.findall(r"\]\(([^)]+)\)", page)
    assert len(targets) > 20
    assert all(target.startswith(("https://", "#")) for target in targets), "the page of a package has no files beside it"
    assert "![The report of a cross-validation on real tissue](https://raw.githubusercontent.com/" in page


def test_it_works_in_an_empty_folder_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    programs = new_environment(tmp_path / "environment", f"{wheel}")
    empty = tmp_path / "empty"
    empty.mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PYTHONPATH", "VIRTUAL_ENV"))}
    clean |= {"HISTO_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            [programs / command[0], *command[1:]], cwd=empty, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    assert "$ histo tune --data tiles.npz --trials 20" in run("histo", "--help")
    assert run("histo", "tune", "--help").startswith("Usage: histo tune [OPTIONS]")
    told = run(
        "python", "-c", "import histo_mlflow as histo; print(histo.__file__, histo.tune.__module__, 'train' in dir(histo))"
    )
    assert told.split()[1:] == ["histo_mlflow.tuning.tune", "True"]
    assert str(PROJECT) not in told

    save_npz(empty / "tiles.npz", draw_demo(n_tiles=54, tile_size_px=32))
    small = ["--data", "tiles.npz", "--backbone", "torchvision:shufflenet_v2_x0_5", "--weights", "none", "--epochs", "1"]
    assert "Registered as models:/histo-b3/1" in run("histo", "train", *small)
    assert list((empty / "mlruns").rglob("report.html")), "templates are there"
    said = run("histo", "tune", *small, "--trials", "2", "--jobs", "2", "--repeats", "0")
    assert "best values" in said
    assert (empty / "best_config.yaml").exists()


_KINDS = {".py", ".j2", ".typed"}
