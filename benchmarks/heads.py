"""How long heads on stored features take: five grouped folds, C chosen in each, all figures with their intervals.

    python benchmarks/heads.py                                         # 18,000 x 1,280
    python benchmarks/heads.py --tiles 100000 --features 1024

Features are drawn: classes overlap, slides differ, columns are correlated as those of a network are. The time is that of
splitting, fitting and evaluating; features are computed before it, and their speed is benchmarks/throughput.py's. Where others
work too, read `cpu_seconds`: on idle cores the time is between that and that divided by their number.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, describe_machine, read_memory_mib, write_results
from numpy.typing import NDArray

from histo_mlflow.evaluation.costs import default_costs
from histo_mlflow.evaluation.metrics import evaluate_predictions
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.jobs.cv import Cv
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.heads import FeatureSplit, fit_head
from histo_mlflow.learning.infer import probabilities_of
from histo_mlflow.learning.reports import EpochReport
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.options import build
from histo_mlflow.tiles.splits import cut_folds
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES, TileSet

_N_FACTORS, _N_SLIDES = 64, 80
_BLOCK = 10_000


def draw_features(n_tiles: int, n_features: int) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.str_]]:
    """Return features ``(n_tiles, n_features)``, labels and slides; a linear head gets about 95 % right."""
    rng = np.random.default_rng(0)
    labels = rng.integers(len(COLORECTAL_CLASSES), size=n_tiles)
    slides = rng.integers(_N_SLIDES, size=n_tiles)
    spectrum = np.arange(1, _N_FACTORS + 1) ** -0.5
    of_class = 0.6 * rng.normal(size=(len(COLORECTAL_CLASSES), _N_FACTORS)) * spectrum
    of_slide = 0.5 * rng.normal(size=(_N_SLIDES, _N_FACTORS)) * spectrum
    mixing = rng.normal(size=(_N_FACTORS, n_features)).astype(np.float32)
    scales = rng.lognormal(sigma=1.0, size=n_features).astype(np.float32)
    features = np.empty((n_tiles, n_features), np.float32)
    for start in range(0, n_tiles, _BLOCK):
        rows = slice(start, start + _BLOCK)
        factors = of_class[labels[rows]] + of_slide[slides[rows]]
        factors = factors + rng.normal(size=factors.shape) * spectrum
        block = factors.astype(np.float32) @ mixing
        block += rng.normal(scale=2.0, size=block.shape).astype(np.float32)
        features[rows] = np.maximum(block, 0) * scales  # as after a last activation
    return features, labels, np.array([f"slide {number}" for number in slides])


def main() -> None:
    """Draw, cross-validate, print and write ``results/heads_<tiles>x<features>.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=18_000)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    features, labels, slides = draw_features(asked.tiles, asked.features)
    images = np.broadcast_to(np.zeros((1, 32, 32, 3), np.uint8), (asked.tiles, 32, 32, 3))
    tiles = TileSet(images, labels, COLORECTAL_CLASSES, slides, "drawn features", "0" * 64)
    options = build(Cv, {"trainable": "head", "augment": "none"})
    network = TileClassifier(n_classes=len(tiles.classes), tile_size_px=32, backbone="torchvision:resnet18")
    layer = torch.nn.Linear(asked.features, len(tiles.classes))
    network.backbone.fc = layer  # as wide as what is drawn
    compute = Compute(torch.device(asked.device), is_bf16=False)

    begun, begun_cpu = time.perf_counter(), time.process_time()
    probabilities = np.zeros((asked.tiles, len(tiles.classes)))
    chosen: list[float] = []
    n_tried, seconds = 0, {"fit": 0.0, "evaluate": 0.0}
    costs = default_costs(tiles.classes)
    for split in cut_folds(tiles, options.split, seed=0):
        reports: list[EpochReport] = []
        started = time.perf_counter()
        given = FeatureSplit(split, [features])
        result = fit_head(network, given, options.recipe, compute, on_epoch=reports.append)
        said = probabilities_of(reports[result.best_epoch - 1].val.logits)
        seconds["fit"] += time.perf_counter() - started
        started = time.perf_counter()
        probabilities[split.val.rows] = said
        evaluate_predictions(Predictions(split.val.labels, said, tiles.classes, split.val.groups), costs=costs)
        seconds["evaluate"] += time.perf_counter() - started
        chosen.append(float(result.cost or 0))
        n_tried += len(reports)
    started = time.perf_counter()
    pooled = evaluate_predictions(Predictions(labels, probabilities, tiles.classes, slides), costs=costs)
    seconds["evaluate"] += time.perf_counter() - started
    accuracy = pooled.overall["accuracy"]
    found = {
        "machine": describe_machine(asked.device),
        "tiles": asked.tiles,
        "features": asked.features,
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(time.process_time() - begun_cpu, 1),
        "seconds_by_part": {name: round(value, 1) for name, value in seconds.items()},
        "chosen_C": chosen,
        "costs_tried": n_tried,
        "accuracy": [accuracy.value, accuracy.low, accuracy.high],
        "memory_mib": round(read_memory_mib().get("VmHWM", 0)),
    }
    write_results(asked.output / f"heads_{asked.tiles}x{asked.features}.json", found)
    print(found)


if __name__ == "__main__":
    main()
