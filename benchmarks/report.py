"""Seconds for the figures of 18,000 tiles with 2,000 resamples, and for a whole report of 7,180 tiles, robustness aside.

Beside them a plain loop over resamples that calls scikit-learn for the same figures, as papers' scripts do, on fewer resamples
and scaled up. Tiles are noise, and so are the predictions. Writes ``benchmarks/results/report.json``.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, describe_machine, draw_noise, write_results
from sklearn import metrics as reference

from histo_mlflow.console import format_table, say
from histo_mlflow.evaluation.baselines import fit_baselines
from histo_mlflow.evaluation.calibration import Calibration
from histo_mlflow.evaluation.findings import About, Details, Findings, evaluate_baselines
from histo_mlflow.evaluation.kept_numbers import write_numbers
from histo_mlflow.evaluation.metrics import evaluate_predictions
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.report_sections import draw_report
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.pipeline.albums import collect_album
from histo_mlflow.pipeline.report import apply_baselines
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES, TileSet

_LOOP_RESAMPLES, _RESAMPLES = 10, 2000


def main() -> None:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured; medians are reported")
    parser.add_argument("--output", type=Path, default=RESULTS / "report.json", help="the JSON file")
    options = parser.parse_args()

    large = draw_predictions(18_000)
    say("drawing 7,180 tiles of 224 px ...")
    images = np.concatenate(list(draw_noise(7180, 224)))
    said = draw_predictions(len(images))
    tiles = TileSet(images, said.labels, COLORECTAL_CLASSES, None, "noise", "0" * 64)
    measured = {
        "all figures, 18,000 x 9, 2,000 resamples": lambda: evaluate_predictions(large),
        "scikit-learn in a loop, the same": lambda: loop(large),
        "whole report, 7,180 tiles of 224 px": lambda: report(tiles, said),
    }
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(options.rounds):
        for name, work in measured.items():
            seconds[name].append(timed(work) * (_RESAMPLES / _LOOP_RESAMPLES if "loop" in name else 1))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    size = report(tiles, said)
    write_results(options.output, {"machine": describe_machine("cpu"), "seconds": seconds, "medians": medians, "page_mb": size})
    say(format_table(["what", "seconds (median)"], [[name, f"{value:.1f}"] for name, value in medians.items()]))
    say(f"the page of 7,180 tiles of smooth noise, which is easier to compress than tissue: {size:.1f} MB")


def draw_predictions(n: int) -> Predictions:
    """Return labels and the softmax of random scores that know something of them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 9, n)
    scores = rng.normal(size=(n, 9)) + 4 * np.eye(9)[labels]
    raised = np.exp(scores)
    return Predictions(labels, raised / raised.sum(axis=1, keepdims=True), COLORECTAL_CLASSES)


def loop(predictions: Predictions) -> None:
    """Compute the figures that scikit-learn has, anew for each of a few resamples."""
    rng = np.random.default_rng(0)
    for _ in range(_LOOP_RESAMPLES):
        rows = rng.integers(len(predictions.labels), size=len(predictions.labels))
        labels, probabilities = predictions.labels[rows], predictions.probabilities[rows]
        predicted = probabilities.argmax(axis=1)
        for figure in (
            reference.balanced_accuracy_score, reference.accuracy_score, reference.matthews_corrcoef,
            reference.cohen_kappa_score,
        ):  # fmt: skip
            figure(labels, predicted)
        reference.f1_score(labels, predicted, average="macro")
        reference.log_loss(labels, probabilities, labels=range(9))
        for k in range(9):
            reference.roc_auc_score(labels == k, probabilities[:, k])
            reference.average_precision_score(labels == k, probabilities[:, k])


def report(tiles: TileSet, predictions: Predictions) -> float:
    """Fit and apply baselines, evaluate, collect tiles with Grad-CAM, write and draw all files; return MB of the page."""
    rows = np.arange(len(tiles))
    baselines = fit_baselines(tiles.images, tiles.labels, rows, n_classes=9, seed=0)
    network = TileClassifier(n_classes=9, tile_size_px=224).eval()
    details = Details(
        calibration=Calibration(temperature=1.5, abstain_below=0.9),
        baselines=evaluate_baselines(apply_baselines(baselines, tiles.part("test"))),
    )
    about = About(source="noise", fingerprint="0" * 64, models=("a model",), selected="by nothing", looks=1, is_synthetic=True)
    with tempfile.TemporaryDirectory() as folder:
        findings = Findings(evaluate_predictions(predictions), rows, about, details)
        write_numbers(Path(folder), findings)
        draw_report(Path(folder), findings, collect_album(findings, tiles, lambda: network, torch.device("cpu")))
        return (Path(folder) / "report.html").stat().st_size / 1e6


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
