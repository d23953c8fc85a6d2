"""A folder of TIFs turned into the cache, against plain decoding of the same files by all cores; and kills on the way.

Plain decoding throws the pixels away: what is slower than that is what the cache costs (writing, bringing to the disk, sums).
Both in turns, files in the page cache, medians of the rounds. Then one conversion is killed at random moments, started again
each time, and its bytes are compared with those of the one that was left alone. Tiles are noise around a colour.

Writes ``benchmarks/results/conversion.json``.
"""

import argparse
import filecmp
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import RESULTS, describe_machine, draw_noise, noise_labels, write_results
from PIL import Image

from histo_mlflow.console import format_table, say
from histo_mlflow.tiles.image_files import decode_image
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES

_OPEN = "import sys; from histo_mlflow.tiles.open import open_tiles; open_tiles(sys.argv[1])"


def main() -> None:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tiles", type=int, default=5000, help="how many TIFs")
    parser.add_argument("--size", type=int, default=224, help="their edge length in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured; medians are reported")
    parser.add_argument("--kills", type=int, default=10, help="times that a conversion is killed")
    parser.add_argument("--output", type=Path, default=RESULTS / "conversion.json", help="the JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = Path(scratch) / "tiles", Path(scratch) / "cache"
        os.environ["HISTO_CACHE_DIR"] = str(cache)
        paths = _write_tifs(folder, options.tiles, options.size)
        seconds: dict[str, list[float]] = {"plain decoding": [], "conversion": [], "opened again": []}
        for _ in range(options.rounds):
            shutil.rmtree(cache, ignore_errors=True)
            seconds["plain decoding"].append(_timed(lambda: _decode(paths)))
            seconds["conversion"].append(_timed(lambda: open_tiles(folder)))
            seconds["opened again"].append(_timed(lambda: open_tiles(folder)))
        (alone,) = cache.glob("*/images.npy")
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        ratio = medians["plain decoding"] / medians["conversion"]
        n_killed, is_same = _kill_and_compare(folder, Path(scratch) / "killed", alone, medians["conversion"], options.kills)
    rows = [[name, f"{value:.2f}", f"{options.tiles / value:.0f}"] for name, value in medians.items()]
    say(format_table(["", "seconds", "tiles/s"], rows))
    say(f"the conversion has {ratio:.2f} of the speed of plain decoding; killed {n_killed} times: same bytes: {is_same}")
    measured = {"seconds": seconds, "ratio": ratio, "killed": n_killed, "same_bytes": is_same}
    write_results(
        options.output, {"machine": describe_machine("cpu"), "tiles": options.tiles, "size_px": options.size} | measured
    )


def _write_tifs(folder: Path, n_tiles: int, size_px: int) -> list[Path]:
    names = [COLORECTAL_CLASSES[label] for label in noise_labels(n_tiles)]
    for name in set(names):
        (folder / name).mkdir(parents=True)
    paths = [folder / name / f"{name}-{k:06d}.tif" for k, name in enumerate(names)]
    tiles = (tile for block in draw_noise(n_tiles, size_px) for tile in block)
    for path, tile in zip(paths, tiles, strict=True):
        Image.fromarray(tile).save(path)
    return paths


def _decode(paths: list[Path]) -> None:
    with ThreadPoolExecutor() as pool:
        deque(pool.map(decode_image, paths), maxlen=0)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _kill_and_compare(folder: Path, cache: Path, alone: Path, seconds: float, n_kills: int) -> tuple[int, bool]:
    """Return how often a conversion was killed on its way, and whether it has come to the bytes of `alone`."""
    command, environment = [sys.executable, "-c", _OPEN, str(folder)], {**os.environ, "HISTO_CACHE_DIR": str(cache)}
    drawn, n_killed = random.Random(0), 0  # noqa: S311 - no secret
    for _ in range(n_kills):
        process = subprocess.Popen(command, env=environment)  # noqa: S603 - this very program
        while process.poll() is None and not list(cache.glob("*.draft/images.npy")):
            time.sleep(0.01)
        time.sleep(drawn.uniform(0, 2 * seconds / n_kills))
        if process.poll() is None:
            process.kill()
            n_killed += 1
        process.wait()
    subprocess.run(command, env=environment, check=True)  # noqa: S603
    (file,) = cache.glob("*/images.npy")
    return n_killed, filecmp.cmp(alone, file, shallow=False)


if __name__ == "__main__":
    main()
