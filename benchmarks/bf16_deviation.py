"""What bf16 changes in labels and probabilities: `python benchmarks/bf16_deviation.py --data TILES --image-size 64`.

Trains on half of the tiles and scores the other half with the same weights in fp32 and in bf16.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, write_results

from histo_mlflow.console import say
from histo_mlflow.learning.compute import Compute, seed_everything
from histo_mlflow.learning.fit import fit, score
from histo_mlflow.learning.infer import probabilities_of
from histo_mlflow.learning.options import Recipe
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.options import build
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.options import HoldOutOptions
from histo_mlflow.tiles.splits import hold_out


def main() -> None:
    """Train, score twice, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="demo", help="tiles, as in `histo train --data`")
    parser.add_argument("--image-size", type=int, default=0, help="edge length in pixels; 0 = as stored")
    parser.add_argument("--epochs", type=int, default=16)
    asked = parser.parse_args()
    tiles = open_tiles(asked.data, image_size=asked.image_size)
    split = hold_out(tiles, HoldOutOptions(val_fraction=0.5), seed=0)
    val = split.val
    seed_everything(0)
    network = TileClassifier(n_classes=len(tiles.classes), tile_size_px=asked.image_size or tiles.tile_size_px)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    exact, coarse = Compute(device, is_bf16=False), Compute(device, is_bf16=True)
    recipe = build(Recipe, {"epochs": asked.epochs, "image_size": asked.image_size, "precision": "fp32"})
    fit(network, split, recipe, on_epoch=lambda report: say(f"epoch {report.epoch}: validation loss {report.val.loss:.4f}"))
    one, other = score(network, val, exact), score(network, val, coarse)
    p_one, p_other = probabilities_of(one.logits), probabilities_of(other.logits)
    figures = {
        "data": Path(asked.data).name,
        "image_size": network.tile_size_px,
        "n": len(val),
        "labels_changed": int((p_one.argmax(1) != p_other.argmax(1)).sum()),
        "largest_probability_difference": float(np.abs(p_one - p_other).max()),
        "mean_probability_difference_of_the_label": float(np.abs(p_one - p_other)[np.arange(len(val)), p_one.argmax(1)].mean()),
        "accuracy": {name: float((s.logits.argmax(1) == s.labels).mean()) for name, s in (("fp32", one), ("bf16", other))},
        "loss": {"fp32": one.loss, "bf16": other.loss},
    }
    write_results(RESULTS / f"bf16-deviation-{device.type}.json", figures)
    say(str(figures))


if __name__ == "__main__":
    main()
