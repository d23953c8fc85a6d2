"""How long an audit without features takes, and how it grows: `python benchmarks/audit.py 4500 9000 18000`.

Tiles of 224 px are generated: noise blurred on several scales, as the tests draw it, a fortieth of them with a planted twin.
"""

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from common import RESULTS, describe_machine, read_memory_mib, write_results

from histo_mlflow.auditing.checks import find_all, look_at
from histo_mlflow.auditing.result import Audit
from histo_mlflow.console import say
from histo_mlflow.tiles.open import open_tiles
from tests.auditing.plants import near_duplicate, texture

_SIZE_PX, _DRAWN = 224, 64


def write_set(file: Path, n_tiles: int) -> int:
    """Write a set as npz: drawn textures, shifted and mixed so that no two are alike; return how many have a planted twin."""
    generator = np.random.default_rng(0)
    drawn = texture(_DRAWN, _SIZE_PX)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".npy") as draft:
        tiles = np.lib.format.open_memmap(draft.name, "w+", np.uint8, (n_tiles, _SIZE_PX, _SIZE_PX, 3))
        for tile in tiles:
            first, second = (drawn[generator.integers(_DRAWN)] for _ in range(2))
            shifts = generator.integers(0, _SIZE_PX, (2, 2))
            tile[:] = np.roll(first, shifts[0], (0, 1)) // 2 + np.roll(second, shifts[1], (0, 1)) // 2
        n_planted = n_tiles // 40
        for k in range(n_planted):
            tiles[n_tiles - 1 - k] = near_duplicate(tiles[k], generator)
        np.savez(file, data=tiles, labels=np.arange(n_tiles) % 9)
    return n_planted


class Watched:
    """Samples every tenth of a second how much memory is the process's own; pages of the mapped file can be taken back."""

    def __init__(self) -> None:
        self.peak_mib, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.1):
            self.peak_mib = max(self.peak_mib, read_memory_mib()["RssAnon"])


def main() -> None:
    """Print a line for each number of tiles, and write ``benchmarks/results/audit.json``."""
    rows = []
    for n_tiles in map(int, sys.argv[1:] or ["4500"]):
        with tempfile.TemporaryDirectory() as folder:
            n_planted = write_set(Path(folder) / "tiles.npz", n_tiles)
            tiles = open_tiles(Path(folder) / "tiles.npz")
            begun = time.perf_counter()
            with Watched() as memory:
                subject = look_at(tiles)
                measured = time.perf_counter() - begun
                findings = find_all(subject)
                Audit(subject, findings).write(Path(folder) / "found")
            near = next(each for each in findings if each.kind == "near_duplicates")
            rows.append({
                "tiles": n_tiles, "seconds": round(time.perf_counter() - begun, 1), "seconds_of_pixels": round(measured, 1),
                "planted": n_planted, "clusters": near.figures.get("clusters", 0),
                "peak_gib": round(memory.peak_mib / 1024, 2),
            })  # fmt: skip
            say(json.dumps(rows[-1]))
            write_results(RESULTS / "audit.json", {"machine": describe_machine("cpu"), "runs": rows})


if __name__ == "__main__":
    main()
