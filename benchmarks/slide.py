"""How far reading a slide and the network overlap, and how much memory slides of several sizes take.

Three arms, interleaved: tiles that are read and thrown away; the network on tiles that lie in memory; and both, as
`histo slide` does it. What counts is both against the slower of the two alone. Slides of several sizes are made of a piece
of the given one, laid side by side, and scored with all files written, each in a process of its own, for the peak of its
memory; by a network that takes none, for what a network takes does not depend on the slide. Weights are random: they change
neither. Prints a table and writes ``benchmarks/results/slide.json``.
"""

from histo_mlflow.process import keep_freed_memory

keep_freed_memory()  # as the command line does

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from common import RESULTS, describe_machine, read_memory_mib, write_results
from torch import Tensor, nn

from histo_mlflow.console import format_table, say
from histo_mlflow.learning.batches import load_ahead
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import choose_batch_size, infer_stream
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.models.model import Model
from histo_mlflow.pipeline.slide import SlideRules, score_slide
from histo_mlflow.pipeline.slide_files import FileWriter
from histo_mlflow.pipeline.slide_model import SlideModel, ask_about
from histo_mlflow.slides.grid import lay_grid
from histo_mlflow.slides.open import open_slide
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.stream import StreamOptions, stream_tiles
from histo_mlflow.slides.tissue import find_tissue
from histo_mlflow.slides.viewer_options import ViewerOptions

_SIZE_PX = 224
_PIECE_PX = 2048
_REPEATS = (3, 6, 12)  # of the piece, each way


def main() -> None:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("slide", type=Path, help="a slide with tissue")
    parser.add_argument("--mpp", type=float, default=None, help="width of its pixels in micrometres, if it doesn't say so")
    parser.add_argument("--model-mpp", type=float, default=0.5, help="of the tiles")
    parser.add_argument("--backbone", default="lite0", help="as in `train`")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--tiles", type=int, default=300, help="at most so many tiles of a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="times that each arm is measured")
    parser.add_argument("--output", type=Path, default=RESULTS / "slide.json", help="the JSON file")
    parser.add_argument("--whole", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.whole is not None:
        print(json.dumps(_score_whole(options.slide, options.mpp, _model(_Mean(), options), options.whole)))
        return
    torch.manual_seed(0)
    model = _model(TileClassifier(n_classes=5, tile_size_px=_SIZE_PX, backbone=options.backbone).eval(), options)
    with closing(open_slide(options.slide, options.mpp)) as slide:
        places = _places(slide, model)
        arms = _arms(slide, _first(places, options.tiles), model)
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        for turn in range(options.rounds + 1):
            for name, arm in arms.items():
                begun = time.perf_counter()
                arm()
                if turn:  # the first one warms up
                    seconds[name].append(time.perf_counter() - begun)
    load = os.getloadavg()[0]
    n_tiles = min(len(places), options.tiles)
    rates = {name: n_tiles / statistics.median(each) for name, each in seconds.items()}
    reading, network, both = (seconds[name] for name in arms)
    shares = [max(pair) / together for *pair, together in zip(reading, network, both, strict=True)]
    memory = _memory(options)
    facts = {
        "machine": describe_machine(options.device), "load": load, "slide": options.slide.name, "backbone": options.backbone,
        "n_tiles": n_tiles, "seconds": seconds, "tiles_per_second": rates, "share_of_the_slower": shares, "memory": memory,
    }  # fmt: skip
    write_results(options.output, facts)
    say(format_table(["what", "tiles per second"], [[name, f"{rate:.1f}"] for name, rate in rates.items()]))
    say(f"both against the slower alone: {statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})")
    for each in memory:
        size = f"{each['n_tiles']} tiles, {each['megapixels']:.0f} megapixels"
        say(f"{size}: at most {each['VmHWM']:.0f} MiB, {each['before']:.0f} before")
    say(f"load of the machine: {load:.1f}")


class _Mean(nn.Module):
    """Takes no memory to speak of."""

    def forward(self, tiles: Tensor) -> Tensor:
        """Return five logits of each tile."""
        return torch.stack([tiles[:, k::5, ::5].float().mean(dim=(1, 2, 3)) / 50 for k in range(5)], dim=1)


def _model(network: nn.Module, options: argparse.Namespace) -> SlideModel:
    device = torch.device(options.device)
    facts = ModelFacts(tuple("ABCDE"), _SIZE_PX, "0" * 64, is_synthetic=False, microns_per_pixel=options.model_mpp)
    return SlideModel(Model(network.to(device), facts, "random"), "", Compute(device, is_bf16=False), options.model_mpp)


def _places(slide: Slide, model: SlideModel) -> Places:
    tissue = find_tissue(slide, SlideRules().tissue)
    return lay_grid(slide, tissue, size_px=_SIZE_PX, microns_per_pixel=model.microns_per_pixel)


def _first(places: Places, n_tiles: int) -> Places:
    return Places(places.left[:n_tiles], places.top[:n_tiles], places.edge_px, places.stride_px)


def _arms(slide: Slide, places: Places, model: SlideModel) -> dict[str, Callable[[], object]]:
    device = model.compute.device
    size = choose_batch_size(model.network, (_SIZE_PX, _SIZE_PX, 3), device)

    def read() -> list[np.ndarray]:
        return [pixels for _, pixels in stream_tiles(slide, places, _SIZE_PX, StreamOptions(batch_size=size))]

    ready = read()

    def infer() -> None:
        for said in infer_stream(model.network, load_ahead(ready, device), model.compute):
            said.cpu()

    return {"reading": read, "network": infer, "both": lambda: ask_about(slide, places, model)}


def _score_whole(path: Path, microns: float | None, model: SlideModel, folder: Path) -> dict[str, Any]:
    _ = model.network
    before = read_memory_mib()["VmHWM"]
    with closing(open_slide(path, microns)) as slide:
        score = score_slide(slide, path.stem, SlideRules(), model)
        FileWriter(ViewerOptions(), "random")(slide, score, folder)
        size_px = slide.size_px
    return {"n_tiles": len(score.scored), "megapixels": size_px[0] * size_px[1] / 1e6, "before": before, **read_memory_mib()}


def _memory(options: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        with closing(open_slide(options.slide, options.mpp)) as slide:
            microns = slide.microns_per_pixel
            pixels = slide.read(0, 0, 0, *(min(length, _PIECE_PX) for length in slide.size_px))
        for n in _REPEATS:
            path = Path(folder) / f"{n}x{n}.tif"
            with tifffile.TiffWriter(path) as file:
                for step in (1, 4, 16):
                    level = np.tile(pixels[::step, ::step], (n, n, 1))
                    file.write(level, tile=(256, 256), photometric="rgb", compression="jpeg", subfiletype=int(step > 1))
            more = ["--mpp", str(microns), "--model-mpp", str(options.model_mpp)]
            command = [sys.executable, __file__, str(path), *more, "--device", options.device, "--whole", folder]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - this very script
            found.append(json.loads(said.splitlines()[-1]))
    return found


if __name__ == "__main__":
    main()
