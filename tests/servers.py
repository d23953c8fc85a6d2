"""Servers that tests start for real, on the loopback, and end with all their children."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MLFLOW = str(Path(sys.executable).with_name("mlflow"))


@contextmanager
def serving(*command: str, port: int, cwd: Path, health: str) -> Iterator[str]:
    """Start a server, wait until it answers at `health`, and yield its address."""
    address = f"http://127.0.0.1:{port}"
    # MLflow looks for uvicorn on the PATH.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (cwd / f"server-{port}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{address}{health}", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((cwd / f"server-{port}.log").read_text()[-3000:]) from None
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def tracking_server(cwd: Path, port: int | None = None) -> Iterator[str]:
    """An MLflow server on SQLite in `cwd`, as one is started for a group of people."""
    port = port or free_port()
    store = ["--backend-store-uri", f"sqlite:///{cwd / 'mlflow.db'}", "--artifacts-destination", str(cwd / "kept")]
    command = [MLFLOW, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store]
    with serving(*command, port=port, cwd=cwd, health="/health") as address:
        yield address


@contextmanager
def model_server(model_uri: str, cwd: Path) -> Iterator[str]:
    """`mlflow models serve` of a model."""
    port = free_port()
    command = [MLFLOW, "models", "serve", "-m", model_uri, "--env-manager", "local", "--host", "127.0.0.1", "-p", str(port)]
    with serving(*command, port=port, cwd=cwd, health="/ping") as address:
        yield address
