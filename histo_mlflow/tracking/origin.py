"""What is needed to say later how a result came about: code, versions, command, machine."""

import getpass
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import histo_mlflow
from histo_mlflow.base.system import user_id

_PACKAGES = ("mlflow", "torch", "torchvision", "numpy", "scikit-learn")
_PROJECT_FOLDER = Path(histo_mlflow.__file__).resolve().parent.parent


def describe_origin() -> Mapping[str, str]:
    """Return the command, the git commit and whether files differ from it, and the versions in use, by name."""
    started, commit = Path(sys.argv[0]), _git("rev-parse", "HEAD")
    program = ["python", "-m", "histo_mlflow"] if started.name == "__main__.py" else [started.name]
    facts = {
        "command": shlex.join([*program, *sys.argv[1:]]),
        "version": histo_mlflow.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": str(os.cpu_count()),
        **{name: version(name) for name in _PACKAGES},
        "git_commit": commit or "none",
    }
    if commit:
        facts["git_dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return facts


def user_name() -> str:
    """Return who runs this, by number where the number has no name, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {user_id()}"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words, no shell
            ["git", "-C", str(_PROJECT_FOLDER), *arguments],  # noqa: S607 - whichever git the user has
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
