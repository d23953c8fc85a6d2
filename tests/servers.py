"""Servers that tests start for real, on the loopback, and end with all their children."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

MLFLOW = str(Path(sys.executable).with_name("mlflow"))


@contextmanager
def serving(*command: str, port: int, cwd: Path, health: str) -> Iterator[str]:
    """Start a server, wait until it answers at `health`, and yield its address."""
    address = f"http://127.0.0.1:{port}"
    # MLflow looks for uvicorn on the PATH.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    # Eight more processes of 1.4 GB, which nobody here needs.
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
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


@contextmanager
def refusing() -> Iterator[tuple[str, list[str]]]:
    """A server or proxy that says no to everybody; yields its address, and what it was asked for: first lines of requests."""
    asked: list[str] = []

    def refuse(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(1000).decode().partition("\r\n")[0])
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=refuse, args=(server,), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def tracking_server(
    cwd: Path, port: int | None = None, *, database: str | None = None, options: Sequence[str] = ()
) -> Iterator[str]:
    """An MLflow server on SQLite in `cwd` or on another database, as one is started for a group of people."""
    port = port or free_port()
    store = ["--backend-store-uri", database or f"sqlite:///{cwd / 'mlflow.db'}", "--artifacts-destination", str(cwd / "kept")]
    command = [MLFLOW, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store, *options]
    with serving(*command, port=port, cwd=cwd, health="/health") as address:
        yield address


@contextmanager
def model_server(model_uri: str, cwd: Path) -> Iterator[str]:
    """`mlflow models serve` of a model."""
    port = free_port()
    command = [MLFLOW, "models", "serve", "-m", model_uri, "--env-manager", "local", "--host", "127.0.0.1", "-p", str(port)]
    with serving(*command, port=port, cwd=cwd, health="/ping") as address:
        yield address


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL of our own on the loopback."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = shutil.which("initdb") or (str(candidates[-1]) if candidates else None)
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    initdb, port = Path(os.path.realpath(found)), free_port()
    # PostgreSQL refuses to run as root, and others can't enter the folders that pytest makes.
    user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []

    def server(*command: str | Path) -> None:
        subprocess.run([*user, *map(str, command)], check=True, cwd="/", capture_output=True, timeout=60)

    with tempfile.TemporaryDirectory(prefix="histo-postgresql-") as folder:
        if user:
            shutil.chown(folder, "nobody", "nogroup")
        data = Path(folder) / "data"
        server(initdb, "-D", data, "-U", "histo", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        server(initdb.with_name("pg_ctl"), "-D", data, "-w", "-l", data / "log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://histo@127.0.0.1:{port}/postgres"
        finally:
            server(initdb.with_name("pg_ctl"), "-D", data, "-m", "immediate", "stop")
