"""What is written in two places must say the same in both."""

import re
import tomllib
from typing import Any

import yaml
from packaging.requirements import Requirement

import histo_mlflow
from tests.conftest import PROJECT

MLPROJECT: dict[str, Any] = yaml.safe_load((PROJECT / "MLproject").read_text())
PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())
README = (PROJECT / "README.md").read_text()


def _pins() -> dict[str, list[str]]:
    pins: dict[str, list[str]] = {}
    for line in (PROJECT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line.removesuffix("\\"))
            pins.setdefault(requirement.name, []).append(str(requirement.specifier))
    assert len(pins) > 50
    return pins


def test_every_dependency_is_pinned_and_the_pins_fit() -> None:
    pins = _pins()
    for text in PYPROJECT["project"]["dependencies"]:
        requirement = Requirement(text)
        assert requirement.name in pins, f"{requirement.name}: run `make requirements`"
        for specifier in pins[requirement.name]:
            assert specifier.startswith("=="), requirement.name
            assert requirement.specifier.contains(specifier.removeprefix("==")), f"{requirement.name}: run `make requirements`"


def test_every_pin_has_hashes() -> None:
    blocks = (PROJECT / "requirements.txt").read_text().split("\n    # via")
    assert len(blocks) > 50
    for block in blocks[:-1]:
        assert block.count("--hash=sha256:") >= 1, f"{block.strip()[:60]}: run `make requirements`"


def test_every_environment_reads_the_one_list() -> None:
    conda = yaml.safe_load((PROJECT / "conda.yaml").read_text())
    python_env = yaml.safe_load((PROJECT / "python_env.yaml").read_text())
    assert python_env["dependencies"] == ["-r requirements.txt"]
    assert conda["dependencies"][-1] == {"pip": ["-r requirements.txt"]}
    assert f"python={python_env['python']}" in conda["dependencies"]
    assert python_env["python"].count(".") == 2, "without its micro version MLflow looks for the newest one"
    assert "--requirements requirements.txt" in (PROJECT / "Makefile").read_text()
    assert MLPROJECT["python_env"] == "python_env.yaml"


def test_versions_agree() -> None:
    assert PYPROJECT["project"]["version"] == histo_mlflow.__version__
    assert f"## {histo_mlflow.__version__}" in (PROJECT / "CHANGELOG.md").read_text()
    assert f"mlflow=={_pins()['mlflow'][0].removeprefix('==')}" in README


def test_readme_names_only_targets_and_entry_points_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`|^ *make ([a-z-]+)", README, re.MULTILINE))
    assert named
    assert {first or second for first, second in named} <= targets
    entries = set(re.findall(r"mlflow run \S+ -e (\w+)", README))
    assert "cv" in entries
    assert entries <= set(MLPROJECT["entry_points"])


def test_readme_holds_the_four_uses_as_they_must_work() -> None:
    for use in (
        "mlflow run . -e cv",
        "mlflow ui",
        'mlflow.pyfunc.load_model("models:/histo-b3/Production")',
        "python tuning/search.py",
    ):
        assert use in README


def test_links_in_the_documents_lead_somewhere() -> None:
    documents = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *(PROJECT / "docs").rglob("*.md")]
    assert len(documents) > 5
    for document in documents:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            is_made = target.startswith("options/")  # when the site is built: tests/test_documents.py
            assert is_made or (document.parent / target).exists(), f"{document.name}: {target}"


def test_modules_that_the_documents_name_exist() -> None:
    for document in ("README.md", "CONTRIBUTING.md", "docs/architecture.md"):
        text = (PROJECT / document).read_text()
        named = re.findall(r"`((?:tests|tuning|docs|benchmarks|[a-z_]+)/[a-z_/]+\.(?:py|md))`", text)
        assert named, document
        for name in named:
            assert any((PROJECT / root / name).exists() for root in (".", "histo_mlflow")), f"{document}: {name}"


def test_tests_that_the_table_of_faults_names_exist() -> None:
    named = set(re.findall(r"(test_[a-z_0-9]+\.py)::(test_\w+)", (PROJECT / "docs" / "reliability.md").read_text()))
    assert len(named) > 50
    for file, name in named:
        found = "".join(path.read_text() for path in (PROJECT / "tests").rglob(file))
        assert f"def {name}" in found, f"{file}::{name}"


def test_decisions_that_the_code_cites_exist() -> None:
    cited = {
        number
        for source in (PROJECT / "histo_mlflow").rglob("*.py")
        for number in re.findall(r"docs/decisions/(\d{4})", source.read_text())
    }
    assert cited
    assert cited <= {path.name[:4] for path in (PROJECT / "docs" / "decisions").glob("*.md")}
