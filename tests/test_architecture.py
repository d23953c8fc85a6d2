"""The rules of structure that import-linter does not hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

MODULES = sorted((PROJECT / "histo_mlflow").rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 30


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_is_small_and_says_what_it_holds(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 280, "split it"
    assert len(ast.get_docstring(ast.parse(source)) or "") > 40


def test_imports_point_down() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_learning_runs_where_mlflow_is_not_installed() -> None:
    code = (
        "import sys\n"
        "for name in ('mlflow', 'click', 'optuna', 'pandas', 'jinja2'): sys.modules[name] = None\n"
        "import histo_mlflow.learning.fit, histo_mlflow.models.weights, histo_mlflow.models.checkpoint\n"
        "import histo_mlflow.tiles.open\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


@pytest.mark.parametrize("entry", ["train", "cv", "evaluate", "compare", "predict", "report"])
def test_each_entry_point_is_one_module_with_one_function_of_its_name(entry: str) -> None:
    tree = ast.parse((PROJECT / "histo_mlflow" / "jobs" / f"{entry}.py").read_text())
    public = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    assert public[0] == entry
