"""Tiles per second of `histo features` against the bare network at 224 px in fp32 on a CPU.

What `features` does (gather, normalise, network, file in the cache) is timed whole, with an empty cache each time. The bare
network is the same backbone, folded and in channels_last, on batches that are ready and normalised. Rounds are interleaved.
Weights and tiles are noise. Prints a table and writes ``benchmarks/results/features.json``.
"""

from histo_mlflow.process import keep_freed_memory

keep_freed_memory()  # as the command line does

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import N_CLASSES, RESULTS, describe_machine, draw_noise, noise_labels, write_results
from torch import nn

from histo_mlflow.console import format_table, say
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import choose_batch_size
from histo_mlflow.models.classifier import TileClassifier, fold_batch_norms
from histo_mlflow.pipeline.features import stored_features
from histo_mlflow.tiles.open import open_tiles

_SIZE_PX = 224
_CLOCKS = ("the clock", "processors")


def main() -> None:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times that each is measured")
    parser.add_argument("--tiles", type=int, default=256, help="tiles of a measurement")
    parser.add_argument("--output", type=Path, default=RESULTS / "features.json", help="the JSON file")
    options = parser.parse_args()
    network = TileClassifier(n_classes=N_CLASSES, tile_size_px=_SIZE_PX).eval()
    seconds: dict[str, list[tuple[float, float]]] = {"features": [], "bare network": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tiles.npz"
        np.savez(file, data=np.concatenate(list(draw_noise(options.tiles, _SIZE_PX))), labels=noise_labels(options.tiles))
        tiles = open_tiles(file)
        bare = _bare(network, np.array(tiles.images))
        for turn in range(options.rounds + 1):
            with tempfile.TemporaryDirectory() as cache:
                os.environ["HISTO_CACHE_DIR"] = cache
                taken = {
                    "features": _timed(lambda: stored_features(network, tiles, Compute(torch.device("cpu"), is_bf16=False))),
                    "bare network": _timed(bare),
                }
            if turn:  # the first one warms up
                for name, value in taken.items():
                    seconds[name].append(value)
    load = os.getloadavg()[0]
    rows = [
        [name, *(f"{options.tiles / statistics.median(each):.1f}" for each in zip(*of, strict=True))]
        for name, of in seconds.items()
    ]
    shares = {
        clock: [bare[k] / whole[k] for whole, bare in zip(*seconds.values(), strict=True)] for k, clock in enumerate(_CLOCKS)
    }
    facts = {"machine": describe_machine("cpu"), "load": load, "n_tiles": options.tiles, "seconds": seconds, "shares": shares}
    write_results(options.output, facts)
    say(format_table(["what", *(f"tiles per second of {clock}" for clock in _CLOCKS)], rows))
    for clock, each in shares.items():
        say(f"share of the bare network by {clock}: {statistics.median(each):.3f} ({min(each):.3f} to {max(each):.3f})")
    say(f"load of the machine: {load:.1f}")


def _bare(network: TileClassifier, images: np.ndarray) -> Callable[[], None]:
    folded = fold_batch_norms(network)
    assert isinstance(folded, TileClassifier)
    backbone = folded.backbone.to(memory_format=torch.channels_last)
    backbone.classifier = nn.Identity()
    size = choose_batch_size(network, images.shape[1:], torch.device("cpu"))
    pixels = [torch.from_numpy(images[start : start + size]).permute(0, 3, 1, 2) for start in range(0, len(images), size)]
    ready = [batch * network.scale + network.shift for batch in pixels]

    @torch.inference_mode()
    def run() -> None:
        for batch in ready:
            backbone(batch)

    return run


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return seconds by the clock and seconds of processors, which other work on the machine disturbs less."""
    start, start_cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - start_cpu


if __name__ == "__main__":
    main()
