"""What other systems lack: here it is taken away, which is not a test on them (docs/systems.md says so)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from histo_mlflow.base.system import is_running, lock_folder
from tests.conftest import PROJECT

# Everything is imported once, for what others import; then Windows' Python lacks this, and ours is imported again.
_LIKE_WINDOWS = """
import os, sys
from importlib import import_module
from pkgutil import walk_packages
import histo_mlflow

def import_all():
    for module in list(walk_packages(histo_mlflow.__path__, "histo_mlflow.")):
        if not module.name.endswith("__main__"):
            import_module(module.name)

import_all()
for name in [name for name in sys.modules if name.startswith("histo_mlflow.")]:
    del sys.modules[name]
sys.modules["fcntl"] = None
for name in ("getuid", "geteuid", "O_DIRECTORY"):
    delattr(os, name)
import_all()
"""


def test_all_of_it_is_imported_where_there_are_no_locks_and_no_user_numbers(work: Path) -> None:
    code = f"""{_LIKE_WINDOWS}
from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.tiles.cache import About, cache_folder, cache_key, create_array, unpacked_once
from histo_mlflow.tiles.cache_entries import list_entries, remove_entry
with scratch_folder() as folder:
    (folder / "a.txt").write_text("a")
def make(file):
    create_array(file, (2, 3))[:] = 7
assert unpacked_once(cache_key("a"), make, About("test")).sum() == 42
assert unpacked_once(cache_key("a"), lambda file: 1 / 0, About("test")).sum() == 42, "kept from the first time"
print([(entry.kind, remove_entry(entry)) for entry in list_entries()])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=work, capture_output=True, text=True, check=False)
    assert done.stdout == "[('test', True)]\n", done.stderr[-2000:]


def test_a_folder_is_locked_by_one_or_shared_by_many(tmp_path: Path) -> None:
    first = lock_folder(tmp_path, is_shared=True)
    second = lock_folder(tmp_path, is_shared=True)
    assert first is not None
    assert second is not None
    with pytest.raises(BlockingIOError):
        lock_folder(tmp_path)
    for descriptor in (first, second):
        os.close(descriptor)
    last = lock_folder(tmp_path)
    assert last is not None
    os.close(last)


def test_processes_are_known_by_number() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""], cwd=PROJECT)
    ended.wait()
    assert not is_running(ended.pid)
    assert is_running(os.getpid())
    assert is_running(1)
