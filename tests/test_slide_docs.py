"""What docs/slides.md tells users to type about scoring slides is run as it stands there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from histo_mlflow.slides.tile_table import read_tile_table
from tests.colour_reader import register
from tests.coloured_slides import MODEL_MICRONS, write_slide
from tests.conftest import PROJECT, Histo

DOCS = (PROJECT / "docs" / "slides.md").read_text()
NAMES = ("a", "b")


@pytest.fixture
def place(work: Path) -> Path:
    """A folder with all that the commands name, and a model in Production."""
    register(0.0, microns_per_pixel=MODEL_MICRONS)
    pink = np.full((1024, 1280, 3), 245, np.uint8)
    pink[256:768, 256:1024] = (214, 120, 188)
    (work / "slides").mkdir()
    for name in NAMES:
        write_slide(work / "slides" / f"{name}.tif", pink)
    shutil.copytree(work / "slides", work / "archive")
    Path("slides.csv").write_text("slide,mpp\nslides/a.tif,\nslides/b.tif,0.5\n")
    shim = work / "bin" / "histo"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m histo_mlflow "$@"\n')
    shim.chmod(0o755)
    return work


def _fenced(language: str, words: str) -> str:
    (found,) = [text for text in re.findall(rf"^```{language}\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL) if words in text]
    return str(found)


def _run(script: str, place: Path, **variables: str) -> None:
    environment = {**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", **variables}
    done = subprocess.run(
        ["bash", "-eu", "-c", script], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _scored(folder: Path) -> set[str]:
    return {
        name for name in NAMES if (folder / f"{name}.csv").is_file() and len(read_tile_table(folder / f"{name}.csv").places)
    }


def test_commands_do_what_they_say(place: Path, histo_here: Histo) -> None:
    alone = re.sub(r"^```.*?^```", "", DOCS, flags=re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^    (histo slide .*)$", alone, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        if "--spark" in command:  # which has a test of its own
            continue
        done = histo_here(*shlex.split(command, comments=True)[1:])
        assert done.returncode == 0, (command, done.stderr)
        assert _scored(place / "scored") == set(NAMES), command


@pytest.mark.slow
def test_the_array_of_slurm_does_all_slides(place: Path) -> None:
    script = _fenced("bash", "#SBATCH")
    for task in ("1", "2"):
        _run(script, place, SLIDES="slides", OUTPUT="scored", SLURM_ARRAY_TASK_ID=task, SLURM_ARRAY_TASK_COUNT="2")
        assert len(_scored(place / "scored")) == int(task)


@pytest.mark.slow
def test_the_script_of_nextflow_writes_what_its_outputs_name(place: Path) -> None:
    module = _fenced("nextflow", "process SLIDE")
    (script,) = re.findall(r'"""\n(.*?)"""', module, re.DOTALL)
    _run(script.replace("${params.model}", "models:/histo-b3/Production").replace("$slide", "slides/a.tif"), place)
    for pattern in re.findall(r'path "(.*?)", emit', module):
        assert subprocess.run(["bash", "-c", f"shopt -s failglob; ls {pattern}"], cwd=place, check=False).returncode == 0, (
            pattern
        )
