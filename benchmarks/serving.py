"""Requests of 32 tiles of 224 px to a served model: as nested lists, and as encoded images.

Once with a network that costs next to nothing, which shows the transport alone, and once with EfficientNet-B3. Prints a table
and writes ``benchmarks/results/serving.json``.
"""

import argparse
import base64
import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import torch
from common import RESULTS, describe_machine, draw_noise, write_results
from logged import save_logged
from PIL import Image
from torch import Tensor

from histo_mlflow.console import format_table, say
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES

_N_TILES, _SIZE_PX = 32, 224


class Cheap(torch.nn.Module):
    """Logits from the mean of one pixel row."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, len(COLORECTAL_CLASSES)))

    def forward(self, tiles: Tensor) -> Tensor:
        """Return ``(n_tiles, n_classes)``."""
        return (tiles[:, 0] * torch.ones(1)).mean(dim=1) @ self.weight


def main() -> None:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="requests of each kind, interleaved; medians are reported")
    parser.add_argument("--output", type=Path, default=RESULTS / "serving.json", help="the JSON file")
    options = parser.parse_args()
    tiles = np.concatenate(list(draw_noise(_N_TILES, _SIZE_PX)))
    bodies = {
        "nested lists": json.dumps({"inputs": tiles.tolist()}).encode(),
        "PNG": json.dumps({"inputs": [_encode(tile, "PNG") for tile in tiles]}).encode(),
        "JPEG": json.dumps({"inputs": [_encode(tile, "JPEG") for tile in tiles]}).encode(),
    }
    networks = {"next to none": Cheap(), "EfficientNet-B3": TileClassifier(n_classes=9, tile_size_px=_SIZE_PX)}
    seconds: dict[str, dict[str, list[float]]] = {}
    for network_name, network in networks.items():
        with tempfile.TemporaryDirectory() as folder, _served(network, Path(folder)) as address:
            _ask(address, bodies["JPEG"])  # the first one loads what is loaded late
            seconds[network_name] = {name: [] for name in bodies}
            for _ in range(options.rounds):
                for name, body in bodies.items():
                    seconds[network_name][name].append(_ask(address, body))
    rows = []
    for network_name, of_network in seconds.items():
        medians = {name: statistics.median(values) for name, values in of_network.items()}
        for name, median in medians.items():
            ratio = medians["nested lists"] / median
            rows.append([network_name, name, f"{median:.3f}", f"{_N_TILES / median:.1f}", f"{ratio:.1f}"])
    write_results(options.output, {"machine": describe_machine("cpu"), "n_tiles": _N_TILES, "seconds": seconds})
    say(format_table(["network", "way in", "seconds", "tiles/s", "ratio"], rows))


def _encode(tile: np.ndarray, kind: str) -> str:
    file = io.BytesIO()
    Image.fromarray(tile).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


@contextmanager
def _served(network: torch.nn.Module, folder: Path) -> Iterator[str]:
    model = save_logged(network, folder, size_px=_SIZE_PX)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bin_folder = Path(sys.executable).parent
    command = [bin_folder / "mlflow", "models", "serve", "-m", model, "--env-manager", "local", "-p", str(port)]
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/ping", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                if server.poll() is not None:
                    raise SystemExit("the server ended before it answered") from None
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _ask(address: str, body: bytes) -> float:
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    start = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        n_rows = len(json.load(answer)["predictions"])
    if n_rows != _N_TILES:
        raise SystemExit(f"{n_rows} rows came back for {_N_TILES} tiles")
    return time.perf_counter() - start


if __name__ == "__main__":
    mlflow.set_tracking_uri("sqlite:////dev/null")  # nothing is tracked
    main()
