"""Heads on features: the regression is scikit-learn's, the choice is validation's."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histo_mlflow.errors import NonFiniteLossError, OptionError
from histo_mlflow.jobs.train import Train
from histo_mlflow.learning import heads
from histo_mlflow.learning.augmentation import views_of
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.heads import FeatureSplit, fit_head
from histo_mlflow.learning.infer import probabilities_of
from histo_mlflow.learning.linear_layer import _mean_and_deviation
from histo_mlflow.learning.logistic import COSTS, Examples, Head, solve
from histo_mlflow.learning.neighbours import NEIGHBOURS, ask_neighbours
from histo_mlflow.learning.optimiser import class_weights
from histo_mlflow.learning.reports import EpochReport, FitResult
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.features import AS_STORED
from histo_mlflow.options import build
from histo_mlflow.tiles.splits import Split, hold_out
from histo_mlflow.tiles.tile_set import TileSet

CPU = torch.device("cpu")
N, WIDTH, CLASSES = 240, 512, ("a", "b", "c", "d")


def draw_features(seed: int = 0, n: int = N, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """Correlated, not centred, of unlike scales, with classes that overlap; one never changes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(CLASSES)
    factors = rng.normal(size=(len(CLASSES), 12))[labels] + 1.5 * rng.normal(size=(n, 12))
    features = factors @ rng.normal(size=(12, width)) + 0.3 * rng.normal(size=(n, width))
    features = features * rng.lognormal(size=width) + 5 * rng.normal(size=width)
    features[:, 0] = 3
    return features.astype(np.float32), labels


def _tile_set(labels: np.ndarray) -> TileSet:
    return TileSet(np.zeros((len(labels), 32, 32, 3), np.uint8), labels, CLASSES, None, "here", "0" * 64)


def _given(**changes: Any) -> FeatureSplit:
    features, labels = draw_features()
    config = build(Train, {})
    split = hold_out(_tile_set(labels), config.split, seed=0)
    return replace(FeatureSplit(split, [features]), **changes)


def _fit(given: FeatureSplit, **options: Any) -> tuple[list[EpochReport], TileClassifier, FitResult]:
    torch.manual_seed(0)
    network = TileClassifier(n_classes=len(CLASSES), tile_size_px=32, backbone="torchvision:resnet18")
    reports: list[EpochReport] = []
    recipe = build(Train, {"trainable": "head", **options}).recipe
    return reports, network, fit_head(network, given, recipe, Compute(CPU, is_bf16=False), on_epoch=reports.append)


def _examples(features: list[np.ndarray], labels: np.ndarray, weights: np.ndarray | None = None) -> Examples:
    weights = np.ones(len(labels)) if weights is None else weights
    return Examples.of(features, np.arange(len(labels)), labels, weights)


@pytest.mark.parametrize("balanced", [False, True])
def test_it_is_the_regression_of_scikit_learn(balanced: bool) -> None:
    features, labels = draw_features()
    labels = np.where(np.arange(N) % 5 == 0, labels, np.minimum(labels, 1)) if balanced else labels
    fresh, _ = draw_features(seed=1)
    options = build(Train, {"class_weights": "balanced" if balanced else "none"}).recipe.fit
    weights = class_weights(options, labels, n_classes=len(CLASSES))[labels]
    for cost, head in solve(_examples([features], labels, weights), len(CLASSES), COSTS[:10:3]):
        regression = LogisticRegression(C=cost, tol=1e-9, max_iter=20_000, class_weight="balanced" if balanced else None)
        reference = make_pipeline(StandardScaler(), regression).fit(features.astype(np.float64), labels)
        for asked in (features, fresh):
            expected = reference.predict_proba(asked.astype(np.float64))
            np.testing.assert_allclose(probabilities_of(head.logits(asked)), expected, atol=1e-4)


def test_several_views_of_a_tile_count_as_one_tile() -> None:
    features, labels = draw_features()
    (_, one), (_, twice) = (
        next(solve(_examples(views, labels), len(CLASSES), [0.1])) for views in ([features], [features, features])
    )
    np.testing.assert_allclose(twice.logits(features), one.logits(features), atol=2e-3)


def test_a_class_without_examples_is_never_predicted() -> None:
    features, labels = draw_features()
    _, head = next(solve(_examples([features], labels % 2), len(CLASSES), [1.0]))
    said = probabilities_of(head.logits(features))
    assert said[:, 2:].max() < 1e-6
    assert (said.argmax(axis=1) == labels % 2).mean() > 0.9


def test_the_cost_of_the_lowest_validation_loss_is_taken_and_is_in_the_network() -> None:
    given = _given()
    reports, network, result = _fit(given)
    losses = [report.val.loss for report in reports]
    assert result.best_epoch == 1 + int(np.argmin(losses))
    assert (result.best_val_loss, result.cost) == (min(losses), COSTS[result.best_epoch - 1])
    assert 1 < result.best_epoch < len(reports), "the row of costs has no end within"
    assert [report.network is network for report in reports] == [report.is_best for report in reports]
    assert [report.epoch for report in reports if report.is_best] == [result.best_epoch]
    assert all(report.cost == cost for report, cost in zip(reports, COSTS, strict=False))
    chosen = given.score_val(Head.of(network.head))
    np.testing.assert_allclose(chosen.logits, reports[result.best_epoch - 1].val.logits, rtol=1e-4, atol=1e-4)
    assert not network.training


def test_larger_costs_are_not_tried_once_two_were_worse() -> None:
    reports, _, result = _fit(_given())
    assert len(reports) in (result.best_epoch + 2, len(COSTS))


def test_no_validation_tile_is_learnt_from() -> None:
    """What the validation tiles are changes what is chosen, and no head that there is to choose from."""
    given = _given()
    poisoned = given.views[0].copy()
    poisoned[given.split.val.rows] = 1e6
    labels = given.split.tiles.labels.copy()
    labels[given.split.val.rows] = 0
    other = Split.of(_tile_set(labels), given.split.train.rows, given.split.val.rows)
    (clean, _, _), (misled, _, _) = _fit(given), _fit(FeatureSplit(other, [poisoned]))
    assert clean[0].val.loss != misled[0].val.loss
    for one, two in zip(clean, misled, strict=False):
        assert one.train_loss == two.train_loss


def test_what_does_not_fit_in_memory_is_learnt_in_batches_and_no_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    given = _given()
    solved, _, _ = _fit(given)
    monkeypatch.setattr(heads, "MOST_BYTES", given.n_train_bytes - 1)
    backbone = TileClassifier(n_classes=4, tile_size_px=32, backbone="torchvision:resnet18")
    reports, network, result = _fit(given, epochs=15, learning_rate=3e-3)
    assert result.cost is None
    assert [report.learning_rate for report in reports] != [None] * 15
    assert min(report.val.loss for report in reports) < 1.15 * min(report.val.loss for report in solved)
    np.testing.assert_allclose(
        given.score_val(Head.of(network.head)).logits, reports[result.best_epoch - 1].val.logits, rtol=1e-4, atol=1e-4
    )
    assert backbone.n_features == network.n_features
    assert len(_fit(given, epochs=50, learning_rate=0.1, patience=1)[0]) < 50


def test_features_are_standardised_alike_in_batches_and_at_once() -> None:
    features, labels = draw_features()
    mean, deviation = _mean_and_deviation([features, features + 1], np.arange(N))
    examples = _examples([features, features + 1], labels)
    np.testing.assert_allclose(mean, examples.mean, rtol=1e-5)
    np.testing.assert_allclose(deviation, examples.deviation, rtol=1e-4)


def test_features_that_are_no_numbers_end_with_a_line() -> None:
    given = _given()
    broken = given.views[0].copy()
    broken[given.split.val.rows] = np.nan
    with pytest.raises(NonFiniteLossError, match="head was never finite"):
        _fit(replace(given, views=[broken]))
    broken[given.split.train.rows[3]] = np.inf
    with pytest.raises(NonFiniteLossError, match="of training tiles are not all numbers"):
        _fit(replace(given, views=[broken]))


@pytest.mark.parametrize(
    ("options", "n_views"),
    [
        ({}, 8),
        ({"augment": "none"}, 1),
        ({"aug_cutoff": 0}, 1),
        ({"aug_cutoff": 1, "rotations": "none"}, 4),
        ({"flips": "none"}, 4),
    ],
)
def test_views_are_those_of_the_recipe_with_the_tile_as_it_is_first(options: dict[str, Any], n_views: int) -> None:
    views = views_of(build(Train, options).recipe.augmentation)
    assert views[0] == AS_STORED
    assert len(set(views)) == len(views) == n_views


@pytest.mark.parametrize(
    "options", [{"stain": "all"}, {"ema_decay": 0.9}, {"label_smoothing": 0.1}, {"processes": 2}, {"compile": True}]
)
def test_what_a_head_can_not_have_is_refused(options: dict[str, Any]) -> None:
    build(Train, options)
    with pytest.raises(OptionError, match=f"{next(iter(options))}=.*has no meaning with trainable=head"):
        build(Train, {"trainable": "head", **options})


def test_the_nearest_tiles_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    given = _given()
    train, val = given.split.train, given.split.val
    said = ask_neighbours(
        replace(given, test=given.views[0], split=replace(given.split, test=replace(val, name="test"))), seed=0
    )
    for k, of_k in zip(NEIGHBOURS, said["val"], strict=True):
        reference = KNeighborsClassifier(k, metric="cosine").fit(given.views[0][train.rows], train.labels)
        np.testing.assert_array_equal(of_k, reference.predict(given.views[0][val.rows]))
    np.testing.assert_array_equal(said["test"], said["val"])
    monkeypatch.setattr("histo_mlflow.learning.neighbours._MAX_TILES", 20)
    assert ask_neighbours(given, seed=0)["val"].shape == (len(NEIGHBOURS), len(val))
