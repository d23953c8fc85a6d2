"""How much of the demo can be had from colour alone, beside what the network learns from random weights in the default run.

All are cross-validated on the same five folds with the same seed. Writes ``benchmarks/results/demo_baselines.json``.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histo_mlflow.console import describe_epoch, format_table, say
from histo_mlflow.evaluation.costs import default_costs
from histo_mlflow.jobs.cv import Cv
from histo_mlflow.learning.reports import EpochReport
from histo_mlflow.models.backbones import DEFAULT_BACKBONE
from histo_mlflow.models.weights import InitialWeights
from histo_mlflow.options import build
from histo_mlflow.pipeline.inputs import LearningInputs
from histo_mlflow.pipeline.split import epoch_metrics, run_split
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tiles.splits import Split, cut_folds
from histo_mlflow.tiles.tile_set import TileSet

RESULTS = Path(__file__).parent / "results" / "demo_baselines.json"
_HISTOGRAM_BINS = 16

Predict = Callable[[TileSet, Split], NDArray[np.int64]]


def mean_rgb(tiles: TileSet) -> NDArray[np.float64]:
    """Return the mean colour of each tile ``(n_tiles, 3)``."""
    return np.asarray(tiles.images.mean(axis=(1, 2)))


def colour_histogram(tiles: TileSet) -> NDArray[np.float64]:
    """Return a histogram of each channel of each tile ``(n_tiles, 48)``."""
    edges = np.linspace(0, 256, _HISTOGRAM_BINS + 1)
    return np.stack([np.concatenate([np.histogram(tile[..., k], edges)[0] for k in range(3)]) for tile in tiles.images])


def classical(features: Callable[[TileSet], NDArray[np.float64]], make_model: Callable[[], Any]) -> Predict:
    """Return a predictor that fits a scikit-learn model on the training part and labels the validation part."""

    def predict(tiles: TileSet, split: Split) -> NDArray[np.int64]:
        values = features(tiles)
        model = make_model().fit(values[split.train.rows], split.train.labels)
        return np.asarray(model.predict(values[split.val.rows]))

    return predict


def network(tiles: TileSet, split: Split) -> NDArray[np.int64]:
    """Train as the default `cv` does and label the validation part."""
    config = build(Cv, {})

    def observe(report: EpochReport) -> None:
        if report.epoch == report.epochs:
            say(describe_epoch(report.epoch, report.epochs, epoch_metrics(report), is_best=report.is_best))

    inputs = LearningInputs(tiles, None, InitialWeights(DEFAULT_BACKBONE, None, "random"), default_costs(tiles.classes))
    result = run_split(inputs, split, config.recipe, on_epoch=observe)
    return np.asarray(result.val.logits.argmax(axis=1))


METHODS: dict[str, Predict] = {
    "majority class": classical(mean_rgb, lambda: DummyClassifier(strategy="most_frequent")),
    "mean RGB, logistic regression": classical(
        mean_rgb, lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    ),
    "mean RGB, random forest": classical(mean_rgb, lambda: RandomForestClassifier(300, random_state=0)),
    "colour histogram, random forest": classical(colour_histogram, lambda: RandomForestClassifier(300, random_state=0)),
    "EfficientNet-B3, random start, default run": network,
}


def main() -> None:
    """Cross-validate every method, print a table and write the figures."""
    tiles = draw_demo()
    config = build(Cv, {})
    splits = cut_folds(tiles, config.split, seed=config.recipe.seed.seed)
    figures: dict[str, dict[str, float]] = {}
    for name, predict in METHODS.items():
        predicted = np.zeros(len(tiles), dtype=np.int64)
        for split in splits:
            predicted[split.val.rows] = predict(tiles, split)
        figures[name] = {
            "accuracy": float(accuracy_score(tiles.labels, predicted)),
            "balanced_accuracy": float(balanced_accuracy_score(tiles.labels, predicted)),
        }
    rows = [[name, *(f"{value:.3f}" for value in values.values())] for name, values in figures.items()]
    say("\n" + format_table(["out-of-fold", "accuracy", "balanced accuracy"], rows))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"tiles": len(tiles), "fingerprint": tiles.fingerprint, "figures": figures}, indent=2) + "\n")
    say(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
