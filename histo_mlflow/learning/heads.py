"""A head for a frozen backbone, fitted on features that are computed already; knows nothing of files or runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.progress import Bar
from histo_mlflow.errors import NonFiniteLossError
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import cross_entropy_of
from histo_mlflow.learning.linear_layer import learn_layer
from histo_mlflow.learning.logistic import COSTS, Examples, Head, solve
from histo_mlflow.learning.optimiser import class_weights
from histo_mlflow.learning.options import Recipe
from histo_mlflow.learning.reports import EpochReport, FitResult, Scored
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.features import set_head
from histo_mlflow.tiles.splits import Split

MOST_BYTES = 2**31
"""Of training features, all views together, for which a logistic regression is solved; more are learnt from in batches."""

_WORSE_COSTS = 2  # in a row, after which larger ones are not tried: they take longest and fit the training tiles ever closer
_BLOCK_ROWS = 8192


@dataclass(frozen=True, eq=False)
class FeatureSplit:
    """A split whose features are known.

    Attributes:
        split: Its tiles.
        views: Features of the whole set ``(n_tiles, n_features)``, of the tiles as stored first, then of their other views.
        test: Features of the whole test set, if the split has one.
    """

    split: Split
    views: Sequence[NDArray[np.float32]]
    test: NDArray[np.float32] | None = None

    @property
    def n_train_bytes(self) -> int:
        """What the training features take, all views together."""
        return len(self.views) * len(self.split.train) * self.views[0][:1].nbytes

    def score_val(self, head: Head) -> Scored:
        """Return what `head` says of the validation tiles."""
        return _score(head, self.views[0], self.split.val.rows, self.split.val.labels)

    def score_test(self, head: Head) -> Scored | None:
        """Return what `head` says of the test tiles, if there are any."""
        part = self.split.test
        return None if part is None or self.test is None else _score(head, self.test, part.rows, part.labels)


def _score(head: Head, features: NDArray[np.float32], rows: NDArray[np.int64], labels: NDArray[np.int64]) -> Scored:
    blocks = (rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS))
    logits = np.concatenate([head.logits(features[block]) for block in blocks])
    return Scored(logits, labels, cross_entropy_of(logits, labels))


@dataclass(frozen=True, eq=False)
class _Step:
    """One head of several: of a cost, or of an epoch; `setting` are the facts of its `EpochReport` that say which."""

    head: Head
    train: Scored
    val: Scored
    setting: Mapping[str, float] = field(default_factory=dict)


def fit_head(
    network: TileClassifier,
    given: FeatureSplit,
    recipe: Recipe,
    compute: Compute,
    *,
    on_epoch: Callable[[EpochReport], None],
) -> FitResult:
    """Fit the head of `network` in place; the backbone stays as it is, and in evaluation mode.

    A multinomial logistic regression is solved for one cost after another, and the one of the lowest validation loss is taken;
    for features larger than `MOST_BYTES` a linear layer learns from them in batches, and the epoch is chosen. The observer is
    told of each cost as of an epoch, when all are done: only the report of the chosen one holds the network.

    Raises:
        NonFiniteLossError: No validation loss is finite.
    """
    is_solved = given.n_train_bytes <= MOST_BYTES
    steps = _solve_costs(given, recipe) if is_solved else _learn_epochs(given, recipe, compute)
    losses = [step.val.loss for step in steps]
    if not np.isfinite(losses).any():
        raise NonFiniteLossError("the validation loss of the head was never finite; check the weights of the backbone")
    best = int(np.nanargmin(losses))
    set_head(network, steps[best].head.weights, steps[best].head.bias)
    network.eval()
    for k, step in enumerate(steps):
        report = EpochReport(
            epoch=k + 1,
            epochs=len(_costs_of(recipe)) if is_solved else recipe.fit.epochs,
            train_loss=step.train.loss,
            train_accuracy=float((step.train.logits.argmax(axis=1) == step.train.labels).mean()),
            val=step.val,
            test=given.score_test(step.head),
            is_best=k == best,
            network=network if k == best else None,
            state=None,
            **step.setting,
        )
        on_epoch(report)
    return FitResult(best + 1, losses[best], compute, steps[best].setting.get("cost"))


def _solve_costs(given: FeatureSplit, recipe: Recipe) -> list[_Step]:
    train = given.split.train
    n_classes = len(train.tiles.classes)
    weights = class_weights(recipe.fit, train.labels, n_classes=n_classes)[train.labels]
    examples = Examples.of(given.views, train.rows, train.labels, weights)
    steps: list[_Step] = []
    costs = _costs_of(recipe)
    for cost, head in Bar(solve(examples, n_classes, costs), total=len(costs), desc="head, each C"):
        train_score = _score(head, given.views[0], train.rows, train.labels)
        steps.append(_Step(head, train_score, given.score_val(head), {"cost": cost}))
        losses = [step.val.loss for step in steps]
        if len(losses) - 1 - int(np.argmin(losses)) >= _WORSE_COSTS:
            break
    return steps


def _costs_of(recipe: Recipe) -> Sequence[float]:
    return (recipe.fit.head_cost,) if recipe.fit.head_cost else COSTS


def _learn_epochs(given: FeatureSplit, recipe: Recipe, compute: Compute) -> list[_Step]:
    train, patience = given.split.train, recipe.fit.patience
    steps: list[_Step] = []
    for rate, head in learn_layer(given.views, train, recipe, compute.device):
        train_score = _score(head, given.views[0], train.rows, train.labels)
        steps.append(_Step(head, train_score, given.score_val(head), {"learning_rate": rate}))
        losses = [step.val.loss for step in steps]
        if patience and len(losses) - 1 - int(np.argmin(losses)) >= patience:
            break
    return steps
