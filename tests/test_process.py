"""What our processes may do beside their work: nothing that the user has not asked for."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.servers import MLFLOW, free_port, refusing, serving

_TESTING = ("PYTEST_", "CI", "GITHUB_", "MLFLOW_", "DO_NOT_TRACK")


@pytest.fixture
def refusing_proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy on this machine that notes who is asked for and refuses."""
    with refusing() as proxy:
        yield proxy


@pytest.mark.parametrize("chosen", [{}, {"MLFLOW_DISABLE_TELEMETRY": "false"}])
def test_nobody_is_told_of_a_run_unless_the_user_wants_it(
    work: Path, refusing_proxy: tuple[str, list[str]], chosen: dict[str, str]
) -> None:
    address, asked = refusing_proxy
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_TESTING)}
    code = (
        "from histo_mlflow.tracking.store import open_store\n"
        "from histo_mlflow.tracking.runs import open_run\n"
        "with open_run(open_store(), 'one'): pass\n"
        "from mlflow.telemetry.client import get_telemetry_client\n"
        "client = get_telemetry_client()\n"
        "if client is not None: client.flush()\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=work, check=True,
        env={**clean, "PYTHONPATH": str(PROJECT), "HTTPS_PROXY": address, "HTTP_PROXY": address, **chosen},
    )  # fmt: skip
    assert bool(asked) is bool(chosen), asked


@pytest.mark.parametrize("opened_by", ["from histo_mlflow.models.exports import open_openvino; open_openvino()\n", ""])
def test_openvino_tells_nobody_of_an_export(work: Path, refusing_proxy: tuple[str, list[str]], opened_by: str) -> None:
    address, asked = refusing_proxy
    clean = {name: value for name, value in os.environ.items() if name not in {"CI", "TF_BUILD", "JENKINS_URL"}}
    proxies = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), address)
    # In a process of its own, with a home of its own, in which Intel's consent would lie.
    subprocess.run(
        [sys.executable, "-c", f"{opened_by}import time; import openvino.tools.ovc; time.sleep(5)"], cwd=work, check=True,
        env={**clean, **proxies, "PYTHONPATH": str(PROJECT), "HOME": str(work)},
    )  # fmt: skip
    assert bool(asked) is not bool(opened_by), asked


def test_a_notebooks_backend_does_not_matter() -> None:
    code = "from histo_mlflow.process import prepare; prepare(); import matplotlib.pyplot; print(matplotlib.get_backend())"
    drawn = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(PROJECT), "MPLBACKEND": "module://matplotlib_inline.gone"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert drawn.stdout.strip() == "agg"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's settings")
@pytest.mark.parametrize(("chosen", "is_kept"), [({}, True), ({"MALLOC_MMAP_MAX_": "65536"}, False)])
def test_freed_memory_is_kept_unless_the_environment_says_otherwise(chosen: dict[str, str], is_kept: bool) -> None:
    code = (
        "from histo_mlflow.process import prepare; prepare(); import numpy\n"
        "large = numpy.ones(2**25); del large\n"
        "print(int(open('/proc/self/statm').read().split()[1]) * 4096 > 2**28)\n"
    )
    measured = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(PROJECT), **chosen},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert measured.stdout.strip() == str(is_kept)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "has_workers"), [(["make", "-o", "setup", "ui"], False), ([MLFLOW, "ui"], True)])
def test_make_ui_starts_no_job_workers(work: Path, command: list[str], has_workers: bool) -> None:
    port = free_port()
    options = f"--port {port} --workers 1 --backend-store-uri sqlite:///{work}/mlflow.db"
    given = ["-C", str(PROJECT), f"OPTIONS={options}"] if command[0] == "make" else options.split()
    with serving(*command, *given, port=port, cwd=work, health="/health"):
        deadline = time.monotonic() + (60 if has_workers else 8)
        while not (seen := "_job_runner" in _commands_beside(f"--port {port}")) and time.monotonic() < deadline:
            time.sleep(0.2)
    assert seen is has_workers


def _commands_beside(known: str) -> str:
    """All command lines of the session in which one holds `known`."""
    lines = [line.split(None, 1) for line in subprocess.check_output(["ps", "-ww", "-eo", "sid,args"], text=True).splitlines()]
    sessions = {session for session, arguments in lines if known in arguments}
    return "\n".join(arguments for session, arguments in lines if session in sessions)
