"""Fit on one split and score the other: what train, cross-validation and tuning have in common; knows nothing of runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from histo_mlflow.evaluation.confusion import epoch_figures
from histo_mlflow.learning.batches import LabelledTiles
from histo_mlflow.learning.compute import Compute, resolve_compute, seed_everything
from histo_mlflow.learning.fit import EpochReport, FitResult, Scored, fit, score
from histo_mlflow.learning.ranks import ALONE, Ranks, local_device, noticing_losses
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.weights import InitialWeights, make_network
from histo_mlflow.options import LearningConfig
from histo_mlflow.tiles.mapped import check_unchanged
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tiles.tile_set import TileSet


@dataclass(frozen=True, eq=False)
class SplitResult:
    """A trained network with the weights of its best epoch, and its scores in full precision.

    Attributes:
        network: In evaluation mode.
        compute: What it was trained on.
        weights_origin: What its first weights were.
        best: The chosen epoch and its validation loss as training saw it.
        val: The validation tiles, in the order of the split.
        test: The test tiles in their own order, or None.
    """

    network: TileClassifier
    compute: Compute
    weights_origin: str
    best: FitResult
    val: Scored
    test: Scored | None


def run_split(
    tiles: TileSet,
    split: Split,
    *,
    test: TileSet | None = None,
    initial: InitialWeights,
    config: LearningConfig,
    on_epoch: Callable[[EpochReport], None],
    ranks: Ranks = ALONE,
    resume: Mapping[str, Any] | None = None,
) -> SplitResult:
    """Train on ``split.train``, select the epoch by the loss on ``split.val``, and score.

    `test` is watched, never selected on. Whatever `on_epoch` raises ends the training. Several `ranks` call this together;
    `resume`, the state to go on from, counts as the first of them has it.
    """
    with noticing_losses(ranks):
        return _run_split(tiles, split, test, initial, config, on_epoch, ranks, ranks.from_first(resume))


def _run_split(
    tiles: TileSet,
    split: Split,
    test: TileSet | None,
    initial: InitialWeights,
    config: LearningConfig,
    on_epoch: Callable[[EpochReport], None],
    ranks: Ranks,
    resume: Mapping[str, Any] | None,
) -> SplitResult:
    seed_everything(config.seed.seed, deterministic=config.engine.deterministic)
    tile_size_px = config.network.image_size or tiles.tile_size_px
    compute = resolve_compute(config.compute, tile_size_px=tile_size_px)
    compute = Compute(local_device(compute.device), compute.is_bf16)
    network, origin = make_network(initial, classes=tiles.classes, tile_size_px=tile_size_px)
    train, val = (LabelledTiles(tiles.images, tiles.labels, rows) for rows in (split.train, split.val))
    watched = None if test is None else LabelledTiles(test.images, test.labels, np.arange(len(test)))

    def check() -> None:
        for each in (tiles, test):
            if each is not None:
                check_unchanged(each.images)

    def observe(report: EpochReport) -> None:
        check()
        on_epoch(report)

    best = fit(
        network,
        train,
        val,
        test=watched,
        options=config.fit,
        augmentation=config.augmentation,
        compute=compute,
        seed=config.seed.seed,
        on_epoch=observe,
        engine=config.engine,
        ranks=ranks,
        resume=resume,
    )
    exact = compute.in_fp32()
    scored = score(network, val, exact, "score validation", ranks)
    tested = None if watched is None else score(network, watched, exact, "score test", ranks)
    check()
    return SplitResult(network, compute, origin, best, val=scored, test=tested)


def score_network(network: torch.nn.Module, tiles: TileSet, compute: Compute) -> Scored:
    """Return logits, labels and loss of all `tiles`, in order."""
    scored = score(network, LabelledTiles(tiles.images, tiles.labels, np.arange(len(tiles))), compute)
    check_unchanged(tiles.images)
    return scored


def epoch_metrics(report: EpochReport) -> dict[str, float]:
    """Return the public metrics of an epoch: loss and figures on each split, learning rate, throughput."""
    metrics = {"train/loss": report.train_loss, "train/accuracy": report.train_accuracy}
    for name, scored in (("val", report.val), ("test", report.test)):
        if scored is not None:
            predicted = scored.logits.argmax(axis=1)
            figures = epoch_figures(scored.labels, predicted, scored.logits.shape[1])
            metrics |= {f"{name}/loss": scored.loss, **{f"{name}/{key}": value for key, value in figures.items()}}
    return metrics | {"learning_rate": report.learning_rate, "train/tiles_per_second": report.tiles_per_second}
