"""How much memory a slide takes beyond the libraries, from small slides to the largest that scanners write.

Each slide is a piece of the given one, laid side by side: a file in which all tiles of a kind are the same bytes, so that ten
thousand megapixels are written at once. It is scored with all files written in a process of its own, by a network that takes
nothing, for what a network takes does not depend on the slide. Libraries are loaded before memory is first read.

Prints a table and writes ``benchmarks/results/slide_memory.json``.
"""

from histo_mlflow.process import keep_freed_memory

keep_freed_memory()  # as the command line does

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pyarrow.parquet
import shapely
import tifffile
import torch
import zarr
from common import RESULTS, describe_machine, read_memory_mib, write_results
from numpy.typing import NDArray
from torch import Tensor, nn

from histo_mlflow.console import format_table, say
from histo_mlflow.learning.compute import Compute
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.models.model import Model
from histo_mlflow.pipeline.slides.files import FileWriter
from histo_mlflow.pipeline.slides.model import SlideModel
from histo_mlflow.pipeline.slides.score import SlideRules, score_slide
from histo_mlflow.slides.open import open_slide
from histo_mlflow.slides.viewer_options import ViewerOptions

_LOADED = (matplotlib.figure, pyarrow.parquet, shapely, zarr)
_SIZE_PX, _MODEL_MICRONS = 224, 0.5
_PIECE_PX, _TILE_PX = 2048, 128


def main() -> None:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("slide", type=Path, help="a slide with tissue in its middle")
    parser.add_argument("--mpp", type=float, default=None, help="width of its pixels in micrometres, if it doesn't say so")
    repeats = "how often its piece is laid, each way"
    parser.add_argument("--repeats", type=int, nargs="+", default=[3, 6, 12, 32, 48], help=repeats)
    parser.add_argument("--output", type=Path, default=RESULTS / "slide_memory.json", help="the JSON file")
    parser.add_argument("--whole", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.whole is not None:
        print(json.dumps(_score_whole(options.slide, options.whole)))
        return
    with closing(open_slide(options.slide, options.mpp)) as slide:
        microns = slide.microns_per_pixel
        left, top = ((length - _PIECE_PX) // 2 for length in slide.size_px)
        piece = slide.read(0, left, top, _PIECE_PX, _PIECE_PX)
    found = []
    for n in options.repeats:
        with tempfile.TemporaryDirectory() as folder:
            path = _write_repeated(Path(folder) / f"{n}x{n}.tif", piece, n, microns)
            command = [sys.executable, __file__, str(path), "--whole", folder]
            said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603 - this very script
            found.append(json.loads(said.splitlines()[-1]))
    write_results(options.output, {"machine": describe_machine("cpu"), "slide": options.slide.name, "slides": found})
    say(format_table(list(found[0]), [[f"{value:.0f}" for value in each.values()] for each in found]))


class _Mean(nn.Module):
    """Takes no memory to speak of."""

    def forward(self, tiles: Tensor) -> Tensor:
        """Return five logits of each tile."""
        return torch.stack([tiles[:, k::5, ::5].float().mean(dim=(1, 2, 3)) / 50 for k in range(5)], dim=1)


def _write_repeated(path: Path, piece: NDArray[np.uint8], n: int, microns: float | None) -> Path:
    """Write a pyramid of a piece laid ``n x n`` times, of which the tiles of one piece alone are stored."""
    scale = {} if microns is None else {"resolution": (1e4 / microns,) * 2, "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for step in (1, 4, 16):
            file.write(
                np.ascontiguousarray(piece[::step, ::step]), tile=(_TILE_PX, _TILE_PX), photometric="rgb",
                compression="jpeg", compressionargs={"level": 85}, subfiletype=int(step > 1), metadata=None, **scale,
            )  # fmt: skip
    with tifffile.TiffFile(path, mode="r+b") as file:
        for page in file.pages:
            edge = page.imagewidth // _TILE_PX
            for tag in ("TileOffsets", "TileByteCounts"):
                values = np.reshape(page.tags[tag].value, (edge, edge))
                page.tags[tag].overwrite(np.tile(values, (n, n)).ravel().tolist())
            for tag in ("ImageWidth", "ImageLength"):
                page.tags[tag].overwrite(page.tags[tag].value * n)
    return path


def _score_whole(path: Path, folder: Path) -> dict[str, Any]:
    facts = ModelFacts(tuple("ABCDE"), _SIZE_PX, "0" * 64, is_synthetic=False, microns_per_pixel=_MODEL_MICRONS)
    device = Compute(torch.device("cpu"), is_bf16=False)
    model = SlideModel(Model(_Mean(), facts, "random"), "", device, _MODEL_MICRONS)
    _ = model.network
    before = read_memory_mib()["VmHWM"]
    with closing(open_slide(path)) as slide:
        score = score_slide(slide, path.stem, SlideRules(), model)
        scored = read_memory_mib()["VmHWM"]
        FileWriter(ViewerOptions(), "random")(slide, score, folder)
        width, height = slide.size_px
    peak = read_memory_mib()["VmHWM"]
    return {
        "megapixels": width * height / 1e6, "n_tiles": len(score.scored), "before_mib": before,
        "scoring_mib": scored - before, "all_mib": peak - before,
    }  # fmt: skip


if __name__ == "__main__":
    main()
