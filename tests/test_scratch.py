"""Folders for what is written on the way do not pile up."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from histo_mlflow.base import scratch
from histo_mlflow.base.scratch import scratch_folder

HOLD = """
import sys, time
from histo_mlflow.base.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "large").write_bytes(b"0" * 1000)
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def _hold() -> tuple["subprocess.Popen[str]", Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def _age(folder: Path) -> None:
    hour_ago = time.time() - 3600
    os.utime(folder, (hour_ago, hour_ago))


def test_a_folder_is_gone_after_its_block(place: Path) -> None:
    with scratch_folder() as folder:
        (folder / "file").write_text("x")
        assert folder.parent == place
    assert not list(place.iterdir())


def test_what_a_killed_process_left_goes_and_what_a_live_one_or_a_person_has_stays(place: Path) -> None:
    killed, left = _hold()
    living, used = _hold()
    try:
        killed.kill()
        killed.wait()
        own = place / "histo-scratch-of-mine"
        own.mkdir()
        linked = place / left.name.replace(left.name[-8:], "linked00")
        linked.symlink_to(own)
        for folder in (left, used, own):
            _age(folder)
        young = Path(tempfile.mkdtemp(prefix=left.name[:-8]))
        scratch._sweep.cache_clear()
        with scratch_folder():
            assert not left.exists()
        assert all(folder.exists() for folder in (used / "large", own, linked, young))
    finally:
        living.kill()
        living.wait()
