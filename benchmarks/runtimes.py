"""Tiles per second of `predict` at 224 px by runtime and precision, the preparation of the model not counted, on a CPU.

Rounds are interleaved and medians reported. Tiles and weights are noise. Prints a table and writes
``benchmarks/results/runtimes.json``.
"""

from histo_mlflow.process import keep_freed_memory

keep_freed_memory()  # as the command line does

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import mlflow.pytorch
import numpy as np
import torch
from common import N_CLASSES, RESULTS, describe_machine, draw_noise, write_results
from logged import save_logged
from numpy.typing import NDArray

from histo_mlflow.console import format_table, say
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer
from histo_mlflow.models import exports
from histo_mlflow.models.classifier import TileClassifier, fold_batch_norms
from histo_mlflow.models.options import ONNX, OPENVINO, OPENVINO_INT8
from histo_mlflow.models.quantized import quantize

_SIZE_PX = 224
_CALIBRATION_TILES = 32  # for the speed they do


def main() -> None:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times that each is measured")
    parser.add_argument("--tiles", type=int, default=64, help="tiles of a measurement")
    parser.add_argument("--output", type=Path, default=RESULTS / "runtimes.json", help="the JSON file")
    options = parser.parse_args()
    tiles = np.concatenate(list(draw_noise(options.tiles, _SIZE_PX)))
    network = TileClassifier(n_classes=N_CLASSES, tile_size_px=_SIZE_PX).eval()
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        logged = save_logged(network, Path(folder), size_px=_SIZE_PX)
        stored = fold_batch_norms(mlflow.pytorch.load_model(str(logged)))  # as `predict` does
    arms: dict[str, tuple[torch.nn.Module, bool]] = {"torch fp32": (stored, False), "torch bf16": (stored, True)}
    prepared = {}
    for name, precision in ((ONNX, "fp32"), *((name, each) for name in (OPENVINO, OPENVINO_INT8) for each in ("fp32", "bf16"))):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            _write(network, name, Path(folder), tiles)
            run = exports.open_written(name, Path(folder), precision=precision)
            prepared[f"{name} {precision}"] = time.perf_counter() - start
        arms[f"{name} {precision}"] = (exports.RuntimeNetwork(run, _SIZE_PX), False)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(options.rounds + 1):
        for name, (module, is_bf16) in arms.items():
            start = time.perf_counter()
            infer(module, tiles, compute=Compute(cpu, is_bf16), batch_size=32, description=None)
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - start)
    load = os.getloadavg()[0]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    facts = {
        "machine": describe_machine("cpu"),
        "n_tiles": options.tiles,
        "seconds": seconds,
        "prepared": prepared,
        "load": load,
    }
    write_results(options.output, facts)
    rows = [
        [
            name,
            f"{options.tiles / median:.1f}",
            *(
                f"{_ratio(seconds[other], seconds[name]):.2f}"
                for other in ("torch fp32", f"{OPENVINO} fp32", f"{OPENVINO} bf16")
            ),
            f"{prepared.get(name, 0):.0f}",
        ]
        for name, median in medians.items()
    ]
    header = ["runtime", "tiles/s", "of torch fp32", "of openvino fp32", "of openvino bf16", "preparation (s)"]
    say(f"{format_table(header, rows)}\nmedians of {options.rounds} rounds; load of the machine: {load:.1f}")


def _ratio(others: list[float], own: list[float]) -> float:
    """Return by how much the second is faster, median of the rounds."""
    return statistics.median(other / each for other, each in zip(others, own, strict=True))


def _write(network: TileClassifier, name: str, folder: Path, tiles: NDArray[np.uint8]) -> None:
    """Write a network as `export` does; in 8 bits after half of the tiles, whose labels are those that it gives them itself."""
    if name != OPENVINO_INT8:
        exports.write(network, name, folder, classes=["any"] * N_CLASSES, microns_per_pixel=0.5)
        return
    shown = tiles[:_CALIBRATION_TILES]
    with tempfile.TemporaryDirectory() as full, torch.inference_mode():
        exports.write(network, OPENVINO, Path(full), classes=["any"] * N_CLASSES, microns_per_pixel=0.5)
        layers = quantize(Path(full), folder, shown, network(torch.from_numpy(shown)).argmax(1).numpy())
    say(f"{name}: {layers.n_int8} of {layers.n_all} layers in 8 bits")


if __name__ == "__main__":
    main()
