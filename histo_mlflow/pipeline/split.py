"""Fit on one split and score the other: what train, cross-validation and tuning have in common; knows nothing of runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from histo_mlflow.evaluation.confusion import epoch_figures
from histo_mlflow.learning.compute import Compute, seed_everything
from histo_mlflow.learning.fit import fit, score
from histo_mlflow.learning.options import HEAD, Recipe
from histo_mlflow.learning.ranks import ALONE, Ranks, noticing_losses
from histo_mlflow.learning.reports import EpochReport, FitResult, Scored
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.weights import make_network
from histo_mlflow.pipeline.head import learn_head
from histo_mlflow.pipeline.inputs import LearningInputs
from histo_mlflow.served_model.precision import in_full_fp32
from histo_mlflow.tiles.mapped import check_unchanged
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tiles.tile_set import Part


@dataclass(frozen=True, eq=False)
class SplitResult:
    """A trained network with the weights of its best epoch, and its scores in full precision.

    Attributes:
        network: In evaluation mode.
        weights_origin: What its first weights were.
        best: The chosen epoch, its validation loss as training saw it, and what it was trained on.
        val: The validation tiles, in the order of the split.
        test: The test tiles in their own order, or None.
        neighbours: What the nearest training tiles get right, by public name of the metric; of a head only.
    """

    network: TileClassifier
    weights_origin: str
    best: FitResult
    val: Scored
    test: Scored | None
    neighbours: Mapping[str, float] = field(default_factory=dict)


def run_split(
    inputs: LearningInputs,
    split: Split,
    recipe: Recipe,
    *,
    on_epoch: Callable[[EpochReport], None],
    ranks: Ranks = ALONE,
    resume: Mapping[str, Any] | None = None,
) -> SplitResult:
    """Train on ``split.train``, select the epoch by the loss on ``split.val``, and score.

    The test tiles of `inputs` are watched, never selected on. Whatever `on_epoch` raises ends the training. Several `ranks`
    call this together; `resume`, the state to go on from, counts as the first of them has it.
    """
    split = replace(split, test=inputs.watched)

    def observe(report: EpochReport) -> None:
        _check_unchanged(split)
        on_epoch(report)

    with noticing_losses(ranks), in_full_fp32():  # bf16, where asked for, is a matter of the forward pass alone
        resume = ranks.from_first(resume)
        seed_everything(recipe.seed.seed, deterministic=recipe.engine.deterministic)
        tile_size_px = recipe.network.image_size or split.tiles.tile_size_px
        network, origin = make_network(inputs.initial, classes=split.tiles.classes, tile_size_px=tile_size_px)
        if recipe.fit.trainable == HEAD:  # begins anew when a run goes on: features are kept, and the rest takes seconds
            head = learn_head(network, split, recipe, on_epoch=observe)
            _check_unchanged(split)
            return SplitResult(network, origin, head.best, head.val, head.test, head.neighbours)
        best = fit(network, split, recipe, on_epoch=observe, ranks=ranks, resume=resume)
        exact = best.compute.in_fp32()
        val = score(network, split.val, exact, "score validation", ranks)
        test = None if split.test is None else score(network, split.test, exact, "score test", ranks)
        _check_unchanged(split)
    return SplitResult(network, origin, best, val, test)


def _check_unchanged(split: Split) -> None:
    for part in (split.train, split.test):
        if part is not None:
            check_unchanged(part.tiles.images)


def score_part(network: torch.nn.Module, part: Part, compute: Compute) -> Scored:
    """Return logits, labels and loss of the tiles of `part`, in order."""
    scored = score(network, part, compute)
    check_unchanged(part.tiles.images)
    return scored


def epoch_metrics(report: EpochReport) -> dict[str, float]:
    """Return the public metrics of an epoch: loss and figures on each split, learning rate and throughput, or cost."""
    metrics = {"train/loss": report.train_loss, "train/accuracy": report.train_accuracy}
    for name, scored in (("val", report.val), ("test", report.test)):
        if scored is not None:
            predicted = scored.logits.argmax(axis=1)
            figures = epoch_figures(scored.labels, predicted, scored.logits.shape[1])
            metrics |= {f"{name}/loss": scored.loss, **{f"{name}/{key}": value for key, value in figures.items()}}
    more = {"learning_rate": report.learning_rate, "train/tiles_per_second": report.tiles_per_second, "head/C": report.cost}
    return metrics | {name: value for name, value in more.items() if value is not None}
