"""Findings that have little and findings that have everything, for tests of what is drawn from them."""

from functools import cache

import numpy as np
import pandas as pd

from histo_mlflow.evaluation.calibration import Calibration
from histo_mlflow.evaluation.findings import About, Details, Findings, evaluate_baselines
from histo_mlflow.evaluation.gallery import GalleryRow, Shown, caption, choose_errors
from histo_mlflow.evaluation.metrics import evaluate_predictions
from histo_mlflow.evaluation.perturbed import Perturbed
from histo_mlflow.evaluation.predictions import Predictions

CLASSES = ("ADI", "TUM", "<b>")


def _find(details: Details, groups: np.ndarray | None = None) -> Findings:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)
    probabilities = rng.dirichlet(np.ones(3), 40)
    about = About(
        source="tiles.npz", fingerprint="f" * 64, models=("models:/m/1",), selected="epoch 2 of 3, by validation loss",
        looks=4, is_synthetic=True,
    )  # fmt: skip
    evaluation = evaluate_predictions(Predictions(labels, probabilities, CLASSES, groups), costs=details.costs)
    return Findings(evaluation, np.arange(40), about, details)


@cache
def find() -> Findings:
    """Return what is found without any details."""
    return _find(Details())


@cache
def find_everything() -> Findings:
    """Return what is found with all of them."""
    rng = np.random.default_rng(1)
    said = {"mean RGB": Predictions(rng.integers(0, 3, 40), rng.dirichlet(np.ones(3), 40), CLASSES)}
    labels, before = rng.integers(0, 3, (2, 9))
    details = Details(
        flow={"training": np.array([3, 4, 0])},
        split_unit="the group",
        calibration=Calibration(temperature=1.7, is_applied=True, abstain_below=0.4),
        costs=rng.random((3, 3)),
        robustness=[Perturbed(kind, "as stored", labels, before, rng.integers(0, 3, 9)) for kind in ("none", "symmetry")],
        baselines=evaluate_baselines(said),
        folds=pd.DataFrame({"fold": [1, 2], "loss": [0.1, 0.2], "best_epoch": [3, 1], "run_id": ["a", "b"]}),
    )
    return _find(details, groups=np.repeat(["p1", "p2", "p3", "p4"], 10))


def show_errors(findings: Findings) -> list[GalleryRow]:
    """Return black tiles in place of those that got another class, one in each row."""
    predictions, tile = findings.predictions, np.zeros((8, 8, 3), np.uint8)
    return [
        GalleryRow(heading, (Shown(tile, tile, caption(predictions, int(rows[0]), 7)),))
        for heading, rows in choose_errors(predictions)
    ]
