"""What can be told without looking at tissue: classifiers that see only colour, to be compared with the model.

On NCT-CRC-HE-100K three colour values reach more than half and a colour histogram more than 80 % of the external test set
(Ignatov and Malivenko 2024): a model that is not far ahead of these may have learnt how slides were stained and stored.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.evaluation.intervals import Floats
from histo_mlflow.tiles.pixels import Pixels

MAX_TILES = 4000
"""Training tiles that a baseline learns from, drawn at random; more change it little."""

_LEVELS = 4  # of each colour in the histogram: 4 x 4 x 4 colours
_EDGE = 64  # pixels along an edge that are looked at
_BLOCK = 256
_PARTS = ("mean", "deviation", "coefficients", "intercepts")


@dataclass(frozen=True, eq=False)
class Baseline:
    """A multinomial logistic regression on standardised features; ``coefficients`` is ``(n_features, n_classes)``."""

    name: str
    mean: Floats
    deviation: Floats
    coefficients: Floats
    intercepts: Floats

    def probabilities(self, features: dict[str, Floats]) -> Floats:
        """Return ``(n_tiles, n_classes)`` from `colour_features`."""
        from scipy.special import softmax

        scores = (features[self.name] - self.mean) / self.deviation @ self.coefficients + self.intercepts
        return np.asarray(softmax(scores, axis=1))


MAJORITY, MEAN_COLOUR, HISTOGRAM = "majority class", "mean RGB", "colour histogram"


def colour_features(images: Pixels, rows: NDArray[np.int64]) -> dict[str, Floats]:
    """Return, by name of baseline, features ``(n_rows, n_features)`` of tiles ``(n_tiles, size, size, 3)``."""
    step = max(1, images.shape[1] // _EDGE)
    means, histograms = [], []
    for start in range(0, len(rows), _BLOCK):
        sampled = np.asarray(images[rows[start : start + _BLOCK], ::step, ::step])
        block = sampled.reshape(len(sampled), -1, 3)
        n = len(block)
        means.append(block.mean(axis=1))
        level = (block // (256 // _LEVELS)).astype(np.int64)
        colour = (level[..., 0] * _LEVELS + level[..., 1]) * _LEVELS + level[..., 2]
        colour += np.arange(n)[:, None] * _LEVELS**3
        histograms.append(np.bincount(colour.ravel(), minlength=n * _LEVELS**3).reshape(n, -1) / block.shape[1])
    return {MAJORITY: np.zeros((len(rows), 1)), MEAN_COLOUR: np.concatenate(means), HISTOGRAM: np.concatenate(histograms)}


def fit_baselines(
    images: Pixels, labels: NDArray[np.int64], rows: NDArray[np.int64], *, n_classes: int, seed: int
) -> list[Baseline]:
    """Return the three baselines, fitted on at most `MAX_TILES` of the training tiles `rows`."""
    if len(rows) > MAX_TILES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_TILES, replace=False))
    own = labels[rows]
    return [_fit(name, of_tiles, own, n_classes) for name, of_tiles in colour_features(images, rows).items()]


def _fit(name: str, features: Floats, labels: NDArray[np.int64], n_classes: int) -> Baseline:
    from sklearn.linear_model import LogisticRegression

    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    shares = np.bincount(labels, minlength=n_classes) / len(labels)
    coefficients = np.zeros((features.shape[1], n_classes))
    intercepts = np.log(np.maximum(shares, 1e-6))
    present = np.unique(labels)
    if features.any() and len(present) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not quite converged is good enough for a baseline
            model = LogisticRegression(max_iter=300, C=10.0).fit((features - mean) / deviation, labels)
        two = len(present) == 2  # scikit-learn then keeps one row, for the second class
        coefficients[:, present] = (np.vstack([-model.coef_ / 2, model.coef_ / 2]) if two else model.coef_).T
        intercepts = np.full(n_classes, np.log(1e-6))
        intercepts[present] = np.r_[-model.intercept_ / 2, model.intercept_ / 2] if two else model.intercept_
    return Baseline(name, mean, deviation, coefficients, intercepts)


def to_json(baselines: list[Baseline]) -> list[dict[str, Any]]:
    """Return the baselines as what JSON can hold."""
    return [{"name": each.name, **{part: getattr(each, part).tolist() for part in _PARTS}} for each in baselines]


def from_json(content: list[dict[str, Any]]) -> list[Baseline]:
    """Return what `to_json` was given."""
    return [Baseline(each["name"], *(np.array(each[part]) for part in _PARTS)) for each in content]
