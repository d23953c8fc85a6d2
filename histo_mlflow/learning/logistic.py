"""Multinomial logistic regression on features, for a row of costs; knows nothing of networks, tiles or validation.

It is scikit-learn's `LogisticRegression` on standardised features: the same penalty, solved by L-BFGS for the same minimum.
What makes it many times faster is the form in which L-BFGS sees the problem. Features of a network are correlated, and so the
loss is a long narrow valley; the curvature of a softmax is at most 1/2 of that of least squares (Boehning 1992, "Multinomial
logistic regression algorithm"), so in coordinates in which least squares is round the valley nearly is. Each cost begins where
the last one has ended.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from histo_mlflow.errors import NonFiniteLossError

Floats = NDArray[np.float64]

COSTS = tuple(float(cost) for cost in np.logspace(-5, 1, 13))
"""Values of C, small ones first: what an error costs against the penalty on weights."""

_CURVATURE = 0.1  # of the softmax against least squares; between 0 and 1/2, and where a classifier is sure near 0
_MAX_ITERATIONS = 500
_N_CORRECTIONS = 20
_BLOCK_ROWS = 8192
_ROUNDING = 1e-6
_LEAST_PENALTY = 1e-4  # in the coordinates, which need not be exact: of smaller ones fp32 knows nothing
_NEVER = -20.0  # logit of a class without examples, of which the others' mean is 0


@dataclass(frozen=True, eq=False)
class Head:
    """A matrix ``(n_classes, n_features)`` and a bias ``(n_classes,)``, for features as the backbone gives them."""

    weights: Floats
    bias: Floats

    @classmethod
    def of(cls, layer: nn.Linear) -> "Head":
        """Return what a layer computes."""
        return cls(layer.weight.detach().cpu().double().numpy(), layer.bias.detach().cpu().double().numpy())

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``(n_rows, n_classes)`` of features ``(n_rows, n_features)``."""
        said = torch.from_numpy(features) @ torch.from_numpy(self.weights.T.astype(np.float32))
        return (said + torch.from_numpy(self.bias.astype(np.float32))).numpy()


@dataclass(frozen=True, eq=False)
class Examples:
    """What is learnt from.

    Attributes:
        features: ``(n_examples, n_features)`` float32 on the device, standardised.
        labels: ``(n_examples,)`` int64 on the CPU.
        weights: ``(n_examples,)`` float64 on the CPU, how much each counts.
        mean: ``(n_features,)``, subtracted.
        deviation: ``(n_features,)``, divided by.
        n_classes: How many there are, whether there are examples of each or not.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor
    mean: Floats
    deviation: Floats
    n_classes: int

    @classmethod
    def of(
        cls, views: Sequence[NDArray[np.float32]], rows: NDArray[np.int64], labels: NDArray[np.int64], weights: Floats,
        n_classes: int, device: torch.device,
    ) -> "Examples":  # fmt: skip
        """Return the tiles at `rows`, with their labels and weights ``(n_rows,)``, in all `views`, which together count as one.

        Mean and deviation are those of scikit-learn's `StandardScaler`: of all examples, whatever they count.
        """
        n_views, n_rows = len(views), len(rows)
        gathered = np.empty((n_views * n_rows, views[0].shape[1]), np.float32)
        for k, view in enumerate(views):
            np.take(view, rows, axis=0, out=gathered[k * n_rows : (k + 1) * n_rows], mode="clip")
        features = torch.from_numpy(gathered).to(device)
        found = torch.std_mean(features, dim=0, correction=0)
        deviation, mean = (each.cpu().double().numpy() for each in found)
        deviation = divisors(mean, deviation)
        features -= found[1]
        features /= torch.from_numpy(deviation).float().to(device)
        tiled = (torch.from_numpy(np.tile(each, n_views)) for each in (labels, weights / n_views))
        return cls(features, *tiled, mean, deviation, n_classes)


def divisors(mean: Floats, deviation: Floats) -> Floats:
    """Return by what features are divided: their deviation, or 1 where they never change but for rounding.

    Raises:
        NonFiniteLossError: A feature is not a number somewhere.
    """
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
        raise NonFiniteLossError("the features of training tiles are not all numbers; check the weights of the backbone")
    return np.where(deviation > _ROUNDING * np.abs(mean), deviation, 1.0)


def solve(examples: Examples, costs: Sequence[float] = COSTS) -> Iterator[tuple[float, Head]]:
    """Yield each cost with the head that has the lowest loss plus penalty: ``C * sum(weight * loss) + |weights|^2 / 2``."""
    problem = _Problem(examples)
    weights, bias = np.zeros((problem.n_features, problem.n_present)), np.zeros(problem.n_present)
    for cost in costs:
        weights, bias = problem.minimise(1 / (cost * float(examples.weights.sum())), weights, bias)
        yield cost, problem.as_head(weights, bias)


class _Problem:
    """The mean loss of the classes that have examples, as a function that scipy minimises."""

    def __init__(self, examples: Examples) -> None:
        self._examples, self._features = examples, examples.features
        self._present, labels = torch.unique(examples.labels, return_inverse=True)
        self.n_features, self.n_present = examples.features.shape[1], len(self._present)
        self._shares = examples.weights / examples.weights.sum()
        self._targets = torch.nn.functional.one_hot(labels, self.n_present).double()
        self._gram = self._make_gram()

    def _make_gram(self) -> Floats:
        roots = self._shares.sqrt().float().to(self._features.device)
        gram = torch.zeros((self.n_features, self.n_features), device=self._features.device)
        for start in range(0, len(roots), _BLOCK_ROWS):
            block = self._features[start : start + _BLOCK_ROWS] * roots[start : start + _BLOCK_ROWS, None]
            gram.addmm_(block.T, block)
        return gram.cpu().double().numpy()

    def minimise(self, penalty: float, weights: Floats, bias: Floats) -> tuple[Floats, Floats]:
        """Return ``(n_features, n_present)`` and ``(n_present,)`` of the lowest mean loss + penalty / 2 |weights|^2."""
        from scipy.linalg import cholesky, solve_triangular
        from scipy.optimize import minimize

        ridge = max(penalty, _LEAST_PENALTY) * np.eye(self.n_features)
        root = cholesky(_CURVATURE * self._gram + ridge, lower=True, overwrite_a=True)

        def unpack(packed: Floats) -> tuple[Floats, Floats]:
            rounded = packed[self.n_present :].reshape(self.n_features, self.n_present)
            return solve_triangular(root, rounded, lower=True, trans="T"), packed[: self.n_present]

        def loss(packed: Floats) -> tuple[float, Floats]:
            weights, bias = unpack(packed)
            value, of_weights, of_bias = self._loss(weights, bias)
            value += penalty / 2 * float((weights**2).sum())
            of_rounded = solve_triangular(root, of_weights + penalty * weights, lower=True)
            return value, np.concatenate([of_bias, of_rounded.ravel()])

        start = np.concatenate([bias, (root.T @ weights).ravel()])
        settings = {"maxiter": _MAX_ITERATIONS, "maxcor": _N_CORRECTIONS, "gtol": 1e-5, "ftol": 1e-10}
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options=settings)
        return unpack(found.x)

    def _loss(self, weights: Floats, bias: Floats) -> tuple[float, Floats, Floats]:
        """Return the mean loss in nats and its gradients."""
        device = self._features.device
        logits = (self._features @ torch.from_numpy(weights).float().to(device)).cpu().double() + torch.from_numpy(bias)
        log_probabilities = torch.log_softmax(logits, dim=1)
        value = -float((log_probabilities * self._targets).sum(dim=1) @ self._shares)
        surplus = (log_probabilities.exp() - self._targets) * self._shares[:, None]
        of_weights = (self._features.T @ surplus.float().to(device)).cpu().double().numpy()
        return value, of_weights, surplus.sum(dim=0).numpy()

    def as_head(self, weights: Floats, bias: Floats) -> Head:
        """Return the standardisation and the regression as one linear layer over all classes."""
        examples, present = self._examples, self._present.numpy()
        folded = np.zeros((examples.n_classes, self.n_features))
        folded[present] = (weights / examples.deviation[:, None]).T
        shifted = np.full(examples.n_classes, _NEVER)
        shifted[present] = bias - bias.mean() - folded[present] @ examples.mean
        return Head(folded, shifted)
