"""Tiles per second and memory of many training steps under each allocator: glibc's with both settings, jemalloc, tcmalloc.

Every arm is a process of its own that repeats the step of `fit` on one batch; every round runs each arm once. The libraries are
Debian's (libjemalloc2, libtcmalloc-minimal4), loaded ahead of glibc's; one that is not there is left out.
Writes ``benchmarks/results/allocators.json``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, describe_machine, draw_noise, noise_labels, read_memory_mib, write_results
from throughput_arms import Job, train_ceiling

from histo_mlflow.console import format_table, say
from histo_mlflow.process import keep_freed_memory

_OURS = "glibc, freed memory kept"
_LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
ARMS = {_OURS: None, "glibc as it comes": None, "jemalloc": "libjemalloc.so.2", "tcmalloc": "libtcmalloc_minimal.so.4"}
_LOOK_SECONDS = 0.5


def measure(arm: str, n_steps: int, batch_size: int, tile_size_px: int) -> dict[str, Any]:
    """Return tiles per second of so many steps in this process, and its anonymous memory in MiB at equal times."""
    if arm == _OURS:
        keep_freed_memory()
    tile = next(draw_noise(1, tile_size_px))[0]
    n_tiles = n_steps * batch_size
    images = np.broadcast_to(tile, (n_tiles, *tile.shape))  # the step takes the first batch alone
    job = Job(images, noise_labels(n_tiles), device="cpu", batch_size=batch_size, n_warm_up=4 * batch_size, n_workers=0)
    memory: list[float] = []
    is_done = threading.Event()

    def look() -> None:
        while not is_done.wait(_LOOK_SECONDS):
            memory.append(read_memory_mib()["RssAnon"])

    watcher = threading.Thread(target=look)
    watcher.start()
    measured = train_ceiling(job)
    is_done.set()
    watcher.join()
    return {"tiles_per_second": measured.tiles_per_second, "anonymous_mib": memory}


def run_arm(arm: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one arm in a process of its own and return what it measured."""
    library = ARMS[arm]
    environment = os.environ | ({} if library is None else {"LD_PRELOAD": str(_LIBRARIES / library)})
    sizes = ("--steps", str(options.steps), "--batch-size", str(options.batch_size), "--tile-size", str(options.tile_size))
    command = [sys.executable, __file__, "--arm", arm, *sizes]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - this script
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> None:
    """Measure all arms in interleaved rounds, or as a child one arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="steps of each arm and round")
    parser.add_argument("--rounds", type=int, default=3, help="how often each arm runs")
    parser.add_argument("--batch-size", type=int, default=32, help="tiles per step")
    parser.add_argument("--tile-size", type=int, default=224, help="edge length in pixels")
    parser.add_argument("--output", type=Path, default=RESULTS / "allocators.json", help="the JSON file")
    parser.add_argument("--arm", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        say(json.dumps(measure(options.arm, options.steps, options.batch_size, options.tile_size)))
        return
    arms = [arm for arm, library in ARMS.items() if library is None or (_LIBRARIES / library).exists()]
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for number in range(options.rounds):
        for arm in arms[number % len(arms) :] + arms[: number % len(arms)]:
            runs[arm].append(run_arm(arm, options))
            say(f"round {number + 1}  {arm:26} {runs[arm][-1]['tiles_per_second']:.2f} tiles/s")
    summary: dict[str, dict[str, Any]] = {
        arm: {
            "tiles_per_second": [run["tiles_per_second"] for run in of_arm],
            "highest_mib": max(max(run["anonymous_mib"]) for run in of_arm),
            "middle_mib": statistics.median(run["anonymous_mib"][len(run["anonymous_mib"]) // 2] for run in of_arm),
            "last_mib": statistics.median(run["anonymous_mib"][-1] for run in of_arm),
        }
        for arm, of_arm in runs.items()
    }
    settings = {name: getattr(options, name) for name in ("steps", "rounds", "batch_size", "tile_size")}
    write_results(options.output, {"machine": describe_machine("cpu"), "settings": settings, "arms": summary})
    memory = ("highest_mib", "middle_mib", "last_mib")
    rows = [
        [arm, f"{statistics.median(of['tiles_per_second']):.1f}", *(f"{of[name]:.0f}" for name in memory)]
        for arm, of in summary.items()
    ]
    say(format_table(["allocator", "tiles/s", "highest MiB", "half way", "at the end"], rows))


if __name__ == "__main__":
    main()
