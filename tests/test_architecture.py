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


def test_the_root_holds_the_few_modules_that_everybody_meets() -> None:
    found = {path.stem for path in (PROJECT / "histo_mlflow").glob("*.py")}
    assert found == {"__init__", "__main__", "cli", "console", "errors", "options", "process"}


@pytest.mark.parametrize("path", [*MODULES, *sorted((PROJECT / "tuning").glob("*.py"))], ids=_name)
def test_functions_are_short_and_take_few_parameters(path: Path) -> None:
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            asked = function.args
            names = {each.arg for each in [*asked.posonlyargs, *asked.args, *asked.kwonlyargs]} - {"self", "cls"}
            assert len(names) <= 6, f"{function.name} takes {len(names)}: give what belongs together a type"
            assert (function.end_lineno or 0) - function.lineno < 60, f"{function.name} is long: split it"


@pytest.mark.parametrize("path", sorted((PROJECT / "histo_mlflow" / "jobs").glob("[a-z]*.py")), ids=_name)
def test_each_job_is_one_file_with_one_function_of_its_name(path: Path) -> None:
    functions = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    assert functions == [path.stem]
