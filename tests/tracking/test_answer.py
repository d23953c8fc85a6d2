"""A server that does not answer is told of within five seconds, before anything heavy is imported or read."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from histo_mlflow.errors import StoreError
from histo_mlflow.tracking import answer
from tests.conftest import Histo
from tests.servers import free_port, refusing

SECONDS = 5.0


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
def dripping_port() -> Iterator[int]:
    """A port that sends a byte now and then, so that no single read takes long."""
    server, is_over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):  # it is closed, here or there
            connection, _ = server.accept()
            while not is_over.wait(0.3):
                connection.send(b"H")
            connection.close()

    threading.Thread(target=drip, daemon=True).start()
    yield int(server.getsockname()[1])
    is_over.set()
    server.close()


@pytest.fixture
def where(silent_port: int, dripping_port: int) -> dict[str, tuple[str, str]]:
    """By what is wrong with a server its address, and what is said of it."""
    return {
        "silent": (f"http://127.0.0.1:{silent_port}", "(no answer within|timed out)"),
        "dripping": (f"http://127.0.0.1:{dripping_port}", "no answer within"),
        "refusing": (f"http://127.0.0.1:{free_port()}", "Connection refused"),
        "of no such name": ("http://histo.invalid:5000", "(not known|resolution|resolve|No address)"),
        "refusing database": (f"postgresql+psycopg://me:S3cretPw@127.0.0.1:{free_port()}/runs", "refused"),
        "silent database": (f"postgresql+psycopg://me:S3cretPw@127.0.0.1:{silent_port}/runs", "(no answer within|timeout)"),
    }


KINDS = ["silent", "dripping", "refusing", "of no such name", "refusing database", "silent database"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_answer_is_told_in_seconds_on_one_line(work: Path, kind: str, where: dict[str, tuple[str, str]]) -> None:
    address, reason = where[kind]
    mlflow.set_tracking_uri(address)
    begun = time.monotonic()
    with pytest.raises(StoreError, match=reason) as caught:
        answer.require_answer()
    assert time.monotonic() - begun < SECONDS
    assert "\n" not in str(caught.value)
    assert "S3cretPw" not in str(caught.value)


@pytest.mark.parametrize("arguments", [["train"], ["evaluate", "--data", "x.npz"], ["predict", "--data", "x.npz"], ["runs"]])
def test_a_command_says_so_before_torch_is_imported_and_data_are_read(
    work: Path, silent_port: int, arguments: list[str]
) -> None:
    code = (
        "import sys, time\n"
        "begun = time.monotonic()\n"
        "from histo_mlflow.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "finally:\n"
        "    heavy = [name for name in ('torch', 'mlflow', 'histo_mlflow.tiles.open') if name in sys.modules]\n"
        "    print(heavy, time.monotonic() - begun)\n"
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{silent_port}"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=work, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"the tracking server http://127.0.0.1:{silent_port} does not answer" in done.stderr
    heavy, _, seconds = done.stdout.strip().rpartition(" ")
    assert heavy == "[]"
    assert float(seconds) < SECONDS


def test_what_needs_no_store_asks_none(histo_here: Histo, work: Path) -> None:
    mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port()}")
    assert histo_here("cache").returncode == 0
    assert histo_here("runs").returncode == 1


def test_a_server_that_says_no_has_answered(work: Path) -> None:
    with refusing() as (address, asked):
        mlflow.set_tracking_uri(address)
        answer.require_answer()
    assert asked
    mlflow.set_tracking_uri(f"sqlite:///{work / 'mlflow.db'}")
    answer.require_answer()
