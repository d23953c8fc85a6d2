"""Tiles of a slide as they are streamed, against the plain way: each by OpenSlide's `read_region` at level 0 and by Pillow.

Every arm runs in a process of its own, in turns; files are in the page cache; medians of the rounds. Two slides, one with four
times the pixels of the other, show whether memory grows with a slide. Unless a slide is given they are written here: grainy
tissue everywhere, tiles of 256 px, JPEG, three levels.

Writes ``benchmarks/results/slide_reading.json``.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import openslide
import tifffile
from common import RESULTS, describe_machine, read_memory_mib, write_results

from histo_mlflow.console import format_table, say
from histo_mlflow.slides.grid import lay_grid
from histo_mlflow.slides.open import open_slide
from histo_mlflow.slides.openslide_reader import open_openslide
from histo_mlflow.slides.options import TissueOptions
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.stream import StreamOptions, stream_tiles
from histo_mlflow.slides.tissue import find_tissue

_SIZE_PX = 224
_TILE_PX = 256
_MICRONS = 0.25


@dataclass(frozen=True)
class _Work:
    """What an arm is to read, in a process of its own."""

    path: Path
    microns: float
    arm: str
    model_microns: float
    workers: int
    most_tiles: int


@dataclass(frozen=True)
class _Done:
    n_tiles: int
    seconds: float
    cpu_seconds: float
    peak_mib: float
    """By which the largest memory of the process grew while it read."""


def main() -> None:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--slide", type=Path, help="a slide to read instead of two that are written")
    parser.add_argument("--mpp", type=float, default=_MICRONS, help="its microns per pixel")
    parser.add_argument("--edge", type=int, default=8192, help="edge in pixels of the smaller written slide")
    parser.add_argument("--tiles", type=int, default=3000, help="how many tiles are read at most")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of threads that are tried")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured; medians are reported")
    parser.add_argument("--output", type=Path, default=RESULTS / "slide_reading.json", help="the JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        paths = [options.slide] if options.slide else [_write(Path(scratch), options.edge * k) for k in (1, 2)]
        microns = options.mpp if options.slide else _MICRONS
        works = [
            _Work(path, microns, arm, model, workers, options.tiles)
            for path in paths
            for model in (0.25, 0.5, 1.0)
            for arm in ("plain", "streamed by OpenSlide", "streamed")
            for workers in options.workers
        ]
        found: dict[_Work, list[_Done]] = {work: [] for work in works}
        for _ in range(options.rounds):
            for work in works:
                found[work].append(_in_own_process(work))
    rows = [_row(work, done) for work, done in found.items()]
    say(format_table(list(rows[0]), [[str(value) for value in row.values()] for row in rows]))
    write_results(options.output, {"machine": describe_machine("cpu"), "rounds": options.rounds, "arms": rows})


def _row(work: _Work, done: list[_Done]) -> dict[str, object]:
    return {
        "slide": work.path.name,
        "model um": work.model_microns,
        "arm": work.arm,
        "threads": work.workers,
        "tiles": done[0].n_tiles,
        "tiles/s": round(statistics.median(each.n_tiles / each.seconds for each in done)),
        "CPU ms a tile": round(statistics.median(each.cpu_seconds / each.n_tiles for each in done) * 1000, 2),
        "memory MiB": round(statistics.median(each.peak_mib for each in done)),
    }


def _in_own_process(work: _Work) -> _Done:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_read, (work,))


def _read(work: _Work) -> _Done:
    slide: Slide = (open_slide if work.arm == "streamed" else open_openslide)(work.path, work.microns)
    with closing(slide):
        tissue = find_tissue(slide, TissueOptions())
        places = lay_grid(slide, tissue, size_px=_SIZE_PX, microns_per_pixel=work.model_microns)
        before, began, cpu = read_memory_mib()["VmHWM"], time.perf_counter(), time.process_time()
        read = _plainly(work, places) if work.arm == "plain" else _streamed(work, slide, places)
        n_tiles = sum(islice(read, work.most_tiles))
        return _Done(n_tiles, time.perf_counter() - began, time.process_time() - cpu, read_memory_mib()["VmHWM"] - before)


def _plainly(work: _Work, places: Places) -> Iterator[int]:
    slide = openslide.OpenSlide(work.path)
    edge = places.edge_px

    def read(row: int) -> np.ndarray:
        region = slide.read_region((int(places.left[row]), int(places.top[row])), 0, (edge, edge)).convert("RGB")
        return np.asarray(region.resize((_SIZE_PX, _SIZE_PX)))

    n_tiles = min(len(places), work.most_tiles)
    with ThreadPoolExecutor(work.workers) as pool:
        yield from (1 for first in range(0, n_tiles, 64) for _ in pool.map(read, range(first, min(first + 64, n_tiles))))


def _streamed(work: _Work, slide: Slide, places: Places) -> Iterator[int]:
    n_tiles = 0
    for rows, _ in stream_tiles(slide, places, _SIZE_PX, StreamOptions(workers=work.workers)):
        yield len(rows)
        n_tiles += len(rows)
        if n_tiles >= work.most_tiles:
            return


def _write(folder: Path, edge: int) -> Path:
    path = folder / f"written {edge} px.tif"
    levels = (edge, edge // 4, edge // 16)
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            file.write(
                _drawn_tiles(level), shape=(level, level, 3), dtype=np.uint8, tile=(_TILE_PX, _TILE_PX), photometric="rgb",
                compression="jpeg", compressionargs={"level": 85}, subfiletype=int(number > 0), metadata=None,
            )  # fmt: skip
    return path


def _drawn_tiles(edge: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(edge)
    for _ in range((-(-edge // _TILE_PX)) ** 2):
        grain = cv2.resize(generator.normal(0, 45, (64, 64, 3)), (_TILE_PX, _TILE_PX), interpolation=cv2.INTER_CUBIC)
        yield np.clip(np.array([175, 100, 160]) + grain, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
