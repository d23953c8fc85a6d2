"""The documents: commands that would be run, links that lead somewhere, pages that are found, facts that are the code's."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import histo_mlflow
from histo_mlflow.cli import JobCommand
from histo_mlflow.jobs import Job, find_jobs
from histo_mlflow.options import option_fields
from tests.conftest import PROJECT
from tests.test_environments import new_environment

DOCS = PROJECT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())


def _option_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("option_pages", DOCS / "_site" / "option_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _commands(document: Path) -> Iterator[list[str]]:
    """Yield the words of each line of code that begins with `histo`, or with the search."""
    for line in document.read_text().splitlines():
        found = re.match(r"(?: {4}|exec |    exec )(histo|python tuning/search\.py) (.*)", line)
        if found and "..." not in line and "NAME" not in line:
            program, rest = found.groups()
            words = shlex.split(rest, comments=True)
            yield ["tune", *words] if program.startswith("python") else words


@pytest.mark.parametrize("document", [PROJECT / "README.md", *(DOCS / page for page in PAGES)], ids=lambda path: path.name)
def test_commands_are_such_as_would_be_run(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "do", lambda *_: None)
    for name, *arguments in _commands(document):
        if name != "--help":
            try:
                JobCommand(find_jobs()[name]).main(arguments, standalone_mode=False)
            except SystemExit:  # --help
                assert "--help" in arguments
            except Exception as error:
                raise AssertionError(f"{document.name}: histo {name} {shlex.join(arguments)}: {error}") from error


def test_the_readme_and_the_ways_in_hold_commands() -> None:
    for document, at_least in {
        "README.md": 7,
        "docs/start-tiles.md": 8,
        "docs/start-features.md": 4,
        "docs/cluster.md": 5,
    }.items():
        assert len(list(_commands(PROJECT / document))) >= at_least, document


def test_every_page_is_in_the_navigation_and_every_decision_in_the_list() -> None:
    config = yaml.safe_load((PROJECT / "mkdocs.yml").read_text())
    named = {page for page in _leaves(config["nav"]) if page.endswith(".md")}
    assert named == set(PAGES), "mkdocs.yml"
    listed = (DOCS / "decisions" / "index.md").read_text()
    assert all(page.removeprefix("decisions/") in listed for page in PAGES if page.startswith("decisions/0"))
    assert config["strict"] is True


def _leaves(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else []:
        yield from _leaves(inner)


def test_links_of_pages_stay_within_the_pages() -> None:
    """Those that lead elsewhere are whole addresses: on the site there is nothing else."""
    made = {path for path, _ in _option_pages().pages()}
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (DOCS / page).read_text()):
            reached = ((DOCS / page).parent / target).resolve()
            assert reached.is_relative_to(DOCS), f"{page}: {target}"
            assert reached.exists() or reached.relative_to(DOCS).as_posix() in made, f"{page}: {target}"


def test_anchors_lead_to_headings() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", (DOCS / page).read_text()):
            text = ((DOCS / page).parent / target if target else DOCS / page).read_text()
            titles = [line.lstrip("# ").lower() for line in text.splitlines() if line.startswith("#")]
            headings = {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}
            assert anchor in headings, f"{page}: {target}#{anchor}"


def test_every_option_has_its_line_with_default_and_help() -> None:
    pages = dict(_option_pages().pages())
    assert len(pages) == len(find_jobs()) + 1
    for name, job in find_jobs().items():
        assert f"[`histo {name}`]({name}.md)" in pages["options/index.md"]
        page = pages[f"options/{name}.md"]
        rows = dict(re.findall(r"^\| `--([\w-]+)` \| (.*)$", page, re.MULTILINE))
        assert list(rows) == [option.replace("_", "-") for option in _in_order_of_help(name)]
        for option, part in option_fields(job.options).items():
            row = rows[option.replace("_", "-")]
            default = str(part.default).lower() if isinstance(part.default, bool) else str(part.default)
            assert f"`{default}`" in row or default == "", option
            assert row.count(" | ") == 1, f"{option}: a bar in the help would be a column"
    assert "(at least 1)" in re.findall(r"`--epochs`.*", pages["options/train.md"])[0]
    assert "one of `auto`, `fp32`, `bf16`" in pages["options/train.md"]


def _in_order_of_help(name: str) -> list[str]:
    from histo_mlflow.options import sections

    groups = sorted(sections(find_jobs()[name].options), key=lambda section: section.comes_last)
    return [option for group in groups for option in group.options]


def test_the_pictures_of_the_first_pages_are_small() -> None:
    for picture in ("overview.svg", "report.png"):
        assert (DOCS / "images" / picture).stat().st_size < 300_000


def test_what_the_package_and_its_citation_say_is_the_same() -> None:
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    project = PYPROJECT["project"]
    assert (citation["version"], citation["license"]) == (histo_mlflow.__version__, project["license"])
    assert citation["repository-code"] == project["urls"]["Source"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]
    assert yaml.safe_load((PROJECT / "mkdocs.yml").read_text())["repo_url"] == project["urls"]["Source"]


def test_the_container_is_made_of_what_is_here() -> None:
    text = (PROJECT / "Dockerfile").read_text()
    python = yaml.safe_load((PROJECT / "python_env.yaml").read_text())["python"]
    assert f"FROM python:{python}-slim" in text
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert {"requirements.txt", "pyproject.toml", "histo_mlflow", "tuning"} <= set(copied)
    assert all((PROJECT / word).exists() for word in copied)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    programs = new_environment(tmp_path / "site", *PYPROJECT["dependency-groups"]["docs"], "click", "pyyaml", "tqdm")
    done = subprocess.run(
        [programs / "python", "-m", "mkdocs", "build", "--site-dir", tmp_path / "built"],
        cwd=PROJECT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    for page in ("index.html", "options/train.html", "options/tune.html", "api.html", "start-tiles.html"):
        assert (tmp_path / "built" / page).exists(), page
    assert "LoadedModel" in (tmp_path / "built" / "api.html").read_text()
    assert "search_index" in "".join(path.name for path in (tmp_path / "built" / "search").iterdir())


@pytest.mark.slow
def test_the_scripts_for_a_cluster_run(work: Path, tiny_npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of the page, with bash in the place of sbatch, smaller tiles and fewer epochs."""
    train, cv, tune = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", (DOCS / "cluster.md").read_text(), re.DOTALL)
    tiny_npz.rename(work / "tiles.npz")
    programs = work / "bin"
    programs.mkdir()
    (programs / "histo").write_text(_HISTO)
    (programs / "histo").chmod(0o755)

    def submit(script: str, **environment: str) -> str:
        for pattern, tiny in {r"--epochs \d+": "--epochs 1", r"--folds \d": "--folds 2", r"--trials \d+": "--trials 2"}.items():
            script = re.sub(pattern, tiny, script)
        slurm = {"SLURM_SUBMIT_DIR": str(work), "SLURM_CPUS_PER_TASK": "1", "SLURM_ARRAY_JOB_ID": "7", "USER": "somebody"}
        with monkeypatch.context() as patch:
            for name, value in {**slurm, "TMPDIR": str(work), "TESTS_SMALL_NETWORK": "1", **environment}.items():
                patch.setenv(name, value)
            patch.setenv("PATH", f"{programs}:/usr/bin:/bin")
            done = subprocess.run(["bash", "-c", script], cwd=work, capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else done.stderr

    assert "Registered as models:/histo-b3/1" in submit(train)
    assert "Registered as models:/histo-b3/2" in submit(cv)
    for task in ("1", "2"):
        assert "histo-7" in submit(tune, SLURM_ARRAY_TASK_ID=task)
    run_id = re.findall(r"/runs/(\w{32})", submit(train))[0]
    assert "has finished" in submit(train, RESUME=run_id), "and is not resumed"


_HISTO = f"""#!/bin/bash
case "$*" in
    *--resume*) ;;
    tune*) set -- "$@" --weights none --batch-size 9 --repeats 0 ;;
    *) set -- "$@" --weights none --batch-size 9 ;;
esac
exec {sys.executable} -m histo_mlflow "$@"
"""
