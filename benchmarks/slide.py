"""How far reading a slide and the network overlap.

Three arms, interleaved: tiles that are read and thrown away; the network on tiles that lie in memory; and both, as
`histo slide` does it. What counts is both against the slower of the two alone. Weights are random: they change nothing.
Prints a table and writes ``benchmarks/results/slide.json``.
"""

from histo_mlflow.process import keep_freed_memory

keep_freed_memory()  # as the command line does

import argparse
import os
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, describe_machine, write_results
from torch import nn

from histo_mlflow.console import format_table, say
from histo_mlflow.learning.batches import load_ahead
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import choose_batch_size, infer_stream
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.models.model import Model
from histo_mlflow.pipeline.slides.model import SlideModel, ask_about
from histo_mlflow.pipeline.slides.score import SlideRules
from histo_mlflow.slides.grid import lay_grid
from histo_mlflow.slides.open import open_slide
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.stream import StreamOptions, stream_tiles
from histo_mlflow.slides.tissue import find_tissue

_SIZE_PX = 224


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
    options = parser.parse_args()
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
    facts = {
        "machine": describe_machine(options.device), "load": load, "slide": options.slide.name, "backbone": options.backbone,
        "n_tiles": n_tiles, "seconds": seconds, "tiles_per_second": rates, "share_of_the_slower": shares,
    }  # fmt: skip
    write_results(options.output, facts)
    say(format_table(["what", "tiles per second"], [[name, f"{rate:.1f}"] for name, rate in rates.items()]))
    say(f"both against the slower alone: {statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})")
    say(f"load of the machine: {load:.1f}")


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


if __name__ == "__main__":
    main()
