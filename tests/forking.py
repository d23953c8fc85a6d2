"""Starts our commands as forks of a process that has imported everything: ``python -m tests.forking``, one request a line.

A command that is to be killed at a random moment is then killed in its work, and not in the seconds of its imports; and tests
of many commands wait for the imports once.
"""

import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import histo_mlflow.models.backbones.torchvision
from histo_mlflow.process import prepare
from tests.small_network import SMALL_NETWORK, get_small_model

LONGEST_SECONDS = 400.0
"""For which a command may run: less than half of a test's own limit, so that what hangs says where."""

_POLL_SECONDS = 0.01
# A lock that another thread holds while a process forks is never free again in its child. Arrow's allocator has a thread.
_ONE_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}


class Forks:
    """Our commands."""

    def __init__(self, root: Path, **environment: str) -> None:
        self._root, self._environment = root, {**os.environ, **_ONE_THREAD, **environment}
        self._begin()

    def _begin(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.forking"], cwd=self._root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=self._environment, start_new_session=True,
        )  # fmt: skip
        assert self._answer() == "ready"

    def run(self, *arguments: str, cwd: Path, timeout: float = LONGEST_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in this environment; what it says is kept apart, as of any process."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            self.start(*arguments, cwd=cwd, log=out, errors=err, environment=os.environ)
            return subprocess.CompletedProcess(arguments, self.wait(timeout=timeout), out.read_text(), err.read_text())

    def start(self, *arguments: str, cwd: Path, log: Path, environment: Mapping[str, str], errors: Path | None = None) -> int:
        """Start ``histo ARGUMENTS``, or the search for ``tune ARGUMENTS``, and return its process id."""
        asked = {
            "arguments": arguments,
            "cwd": str(cwd),
            "logs": [str(log), str(errors or log)],
            "environment": dict(environment),
            "is_whole": errors is not None,
        }
        self._last = int(self._ask(asked))
        return self._last

    def wait(self, pid: int | None = None, timeout: float = LONGEST_SECONDS) -> int:
        """Wait for a command, by default for the one that was started last; return its exit code, negative for a signal.

        One that takes too long is ended by SIGABRT, and its log tells what each thread was doing.
        """
        return int(self._ask([pid or self._last, timeout]))

    def count_threads(self) -> int:
        """Return how many threads the process has that forks."""
        return len(list(Path(f"/proc/{self._server.pid}/task").iterdir()))

    def close(self) -> None:
        """End the process that forks."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(60)

    def _ask(self, asked: object) -> str:
        assert self._server.stdin is not None
        try:
            self._server.stdin.write(json.dumps(asked) + "\n")
            self._server.stdin.flush()
            return self._answer()
        except BaseException:  # the test's own limit: the answer that is still to come is not for the next test
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._begin()
            raise

    def _answer(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()


def _serve() -> None:
    entry_points = _imported()
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, list):
            print(_end_of(*asked), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _become(asked, entry_points)
        print(pid, flush=True)


def _end_of(pid: int, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGABRT)
            deadline = float("inf")
        time.sleep(_POLL_SECONDS)


def _imported() -> dict[str, Callable[[Sequence[str]], Any]]:
    prepare()
    import torch

    torch.set_num_threads(1)
    import matplotlib.pyplot  # noqa: F401
    import mlflow.pytorch  # noqa: F401

    import tuning.trials  # noqa: F401
    from histo_mlflow.cli import main, run_command
    from tuning.search import make_command

    for module in walk_packages(histo_mlflow.__path__, "histo_mlflow."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(2, 2),))  # imports what exporting needs
    return {
        "histo": main,
        "tune": lambda arguments: run_command(make_command(), prog_name="tune", arguments=arguments),
    }


def _become(asked: dict[str, Any], entry_points: dict[str, Callable[[Sequence[str]], Any]]) -> None:
    code = 1
    try:
        os.chdir(asked["cwd"])
        if asked["is_whole"]:
            os.environ.clear()
        os.environ.update(asked["environment"])
        for number, log in enumerate(asked["logs"], start=1):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        faulthandler.enable()
        if SMALL_NETWORK in asked["environment"]:
            histo_mlflow.models.backbones.torchvision.get_model = get_small_model
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        name, *rest = asked["arguments"]
        arguments = rest if name == "tune" else [name, *rest]
        sys.argv = ["tune" if name == "tune" else "histo", *arguments]
        entry_points[sys.argv[0]](arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
