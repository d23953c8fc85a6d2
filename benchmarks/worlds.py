"""Populations of tiles, patients and models whose true figures are known; for simulations of what an evaluation promises.

A world has nine classes whose difficulty differs, a mix of classes, patients whose difficulty differs where they are asked
for, and two models that make much the same errors.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from histo_mlflow.evaluation.intervals import Floats, Units
from histo_mlflow.evaluation.metrics import statistics_of
from histo_mlflow.evaluation.predictions import Predictions

N_CLASSES = 9

_CLASSES = tuple("ABCDEFGHI")
_PATIENT_EFFECT = 1.2  # standard deviation; the classes lie about 4 apart
_ALIKE = 0.7  # correlation of the two models' scores, and of what patients do to them


@dataclass(frozen=True)
class Kind:
    """What worlds have in common."""

    is_by_patient: bool
    has_even_mix: bool
    accuracy: float


class World:
    """One population with its two models, of which the first has the accuracy of its kind."""

    def __init__(self, kind: Kind, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        even = np.full(N_CLASSES, 1 / N_CLASSES)
        self.is_by_patient = kind.is_by_patient
        self.mix = even if kind.has_even_mix else 0.9 * rng.dirichlet(np.full(N_CLASSES, 2.0)) + 0.1 * even
        self.of_class, sharpness = rng.normal(0, 0.35, N_CLASSES), np.exp(rng.normal(0, 0.2, 2))
        other = rng.normal(0.1, 0.2, N_CLASSES)  # how much better the second model finds each class
        self.gains, self.sharpness, self.separation = (np.zeros(N_CLASSES), other), sharpness, 4.0
        low, high = 0.0, 9.0
        for _ in range(14):
            said = self.draw(np.random.default_rng([seed, 1]), np.ones(20_000, np.int64))
            low, high = (low, self.separation) if 1 - said.is_wrong.mean() > kind.accuracy else (self.separation, high)
            self.separation = (low + high) / 2

    def draw(self, rng: np.random.Generator, sizes: NDArray[np.int64]) -> Predictions:
        """Return what the first model says of as many patients as there are `sizes`, with so many tiles each."""
        return self._draw(rng, sizes, 1)[0]

    def draw_pair(self, rng: np.random.Generator, sizes: NDArray[np.int64]) -> tuple[Predictions, Predictions]:
        """Return what both models say of the same tiles."""
        first, second = self._draw(rng, sizes, 2)
        return first, second

    def _draw(self, rng: np.random.Generator, sizes: NDArray[np.int64], n_models: int) -> list[Predictions]:
        patient = np.repeat(np.arange(len(sizes)), sizes)
        labels = rng.choice(N_CLASSES, size=len(patient), p=self.mix)
        is_grouped = self.is_by_patient and len(sizes) < len(patient)
        groups = np.arange(len(sizes)).astype(str)[patient] if is_grouped else None
        effects = _PATIENT_EFFECT * _correlated(rng, n_models, (len(sizes),)) if self.is_by_patient else None
        said = []
        for k, scores in enumerate(_correlated(rng, n_models, (len(patient), N_CLASSES))):
            separation = self.separation + (self.of_class + self.gains[k])[labels]
            if effects is not None:
                separation = separation + effects[k][patient]
            scores[np.arange(len(labels)), labels] += np.maximum(separation, 0.2)
            probabilities = softmax(0.9 * self.separation * self.sharpness[k] * scores, axis=1)
            said.append(Predictions(labels, probabilities, _CLASSES, groups))
        return said

    def truth(self, n_tiles: int) -> dict[str, Floats]:
        """Return the figures of the first model, each ``(1,)`` or ``(n_classes,)``."""
        return _figures(self.draw(np.random.default_rng(2), np.ones(n_tiles, np.int64)))

    def true_differences(self, n_tiles: int) -> dict[str, Floats]:
        """Return by how much the second model has more."""
        first, second = map(_figures, self.draw_pair(np.random.default_rng(2), np.ones(n_tiles, np.int64)))
        return {name: second[name] - first[name] for name in first}


def _figures(said: Predictions) -> dict[str, Floats]:
    found: Mapping[str, Floats] = Units(len(said.labels)).value(statistics_of(said))
    return {name: np.atleast_1d(each) for name, each in found.items()}


def _correlated(rng: np.random.Generator, n_models: int, shape: tuple[int, ...]) -> Floats:
    """Return standard normal numbers ``(n_models, *shape)`` that are alike among models."""
    if n_models == 1:
        return rng.normal(size=(1, *shape))
    return np.sqrt(_ALIKE) * rng.normal(size=shape) + np.sqrt(1 - _ALIKE) * rng.normal(size=(n_models, *shape))
