"""A head on a split: features kept, head fitted, scored, and set beside what the nearest tiles say; knows nothing of runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from histo_mlflow.errors import OptionError
from histo_mlflow.evaluation.confusion import epoch_figures
from histo_mlflow.learning.augmentation import views_of
from histo_mlflow.learning.compute import resolve_compute_for_report
from histo_mlflow.learning.fit import score
from histo_mlflow.learning.heads import FeatureSplit, fit_head
from histo_mlflow.learning.logistic import Head
from histo_mlflow.learning.neighbours import NEIGHBOURS, ask_neighbours
from histo_mlflow.learning.options import Recipe
from histo_mlflow.learning.reports import EpochReport, FitResult, Scored
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.pipeline.features import stored_features
from histo_mlflow.tiles.splits import Split


@dataclass(frozen=True, eq=False)
class FittedHead:
    """What came of fitting a head; the network holds it.

    Attributes:
        best: Which one was chosen.
        val: Scores of the validation tiles in full precision, in the order of the split.
        test: Of the test tiles, or None.
        neighbours: What the nearest training tiles get right, by public name of the metric.
    """

    best: FitResult
    val: Scored
    test: Scored | None
    neighbours: Mapping[str, float]


def learn_head(network: TileClassifier, split: Split, recipe: Recipe, *, on_epoch: Callable[[EpochReport], None]) -> FittedHead:
    """Fit the head of `network` in place on stored features of `split`, and score it; the backbone stays as it is.

    Raises:
        OptionError: The head is of a kind that can't take a fitted one.
    """
    if network.head.bias is None:
        raise OptionError(
            f"backbone={network.backbone_name}: its last layer has no bias, which trainable=head needs; take another"
        )
    compute = resolve_compute_for_report(recipe.compute)
    network.to(compute.device).to(memory_format=torch.channels_last).eval()
    views = [stored_features(network, split.tiles, compute, view) for view in views_of(recipe.augmentation)]
    test = None if split.test is None else stored_features(network, split.test.tiles, compute)
    given = FeatureSplit(split, views, test)
    best = fit_head(network, given, recipe, compute, on_epoch=on_epoch)
    neighbours = _judge_neighbours(given, recipe.seed.seed)
    if compute.is_bf16:  # of which final figures know nothing
        exact = compute.in_fp32()
        of_test = None if split.test is None else score(network, split.test, exact, "score test")
        return FittedHead(best, score(network, split.val, exact, "score validation"), of_test, neighbours)
    head = Head.of(network.head)
    return FittedHead(best, given.score_val(head), given.score_test(head), neighbours)


def _judge_neighbours(given: FeatureSplit, seed: int) -> dict[str, float]:
    """Return accuracy and balanced accuracy on each part, k chosen by the macro F1 of the validation tiles."""
    split, said = given.split, ask_neighbours(given, seed=seed)
    n_classes = len(split.tiles.classes)
    best = int(np.argmax([epoch_figures(split.val.labels, of_k, n_classes)["macro_f1"] for of_k in said["val"]]))
    metrics = {"neighbours/k": float(NEIGHBOURS[best])}
    for part in (split.val, split.test):
        if part is not None:
            figures = epoch_figures(part.labels, said[part.name][best], n_classes)
            metrics |= {f"neighbours/{part.name}/{name}": figures[name] for name in ("accuracy", "balanced_accuracy")}
    return metrics
