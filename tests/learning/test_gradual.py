"""The head learns alone at first, then all layers do."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from histo_mlflow.learning.compute import seed_everything
from histo_mlflow.learning.fit import EpochReport, fit
from histo_mlflow.learning.options import Recipe
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.options import build
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tiles.tile_set import TileSet

pytestmark = pytest.mark.usefixtures("small_network")

_GRADUAL: dict[str, Any] = {
    "trainable": "gradual", "head_epochs": 2, "epochs": 4, "layer_decay": 0.75, "batch_size": 9, "aug_cutoff": 3,
    "device": "cpu", "precision": "fp32",
}  # fmt: skip
_EVERYTHING = {"ema_decay": 0.5, "label_smoothing": 0.1, "class_weights": "balanced"}


def _learn(
    tiles: TileSet, *, resume: Mapping[str, Any] | None = None, **values: Any
) -> tuple[list[EpochReport], list[dict[str, Any]], TileClassifier, dict[str, Tensor]]:
    """Return reports, states after each epoch, the network and its first weights."""
    seed_everything(0)
    network = TileClassifier(n_classes=9, tile_size_px=tiles.tile_size_px)
    first = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    reports: list[EpochReport] = []
    states: list[dict[str, Any]] = []

    def observe(report: EpochReport) -> None:
        reports.append(report)
        states.append(copy.deepcopy(dict(report.state)))

    split = Split.of(tiles, np.arange(18), np.arange(18, 36))
    fit(network, split, build(Recipe, {**_GRADUAL, **values}), on_epoch=observe, resume=resume)
    return reports, states, network, first


def _changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_while_the_head_learns_alone_nothing_else_changes_by_a_bit(tiny_tiles: TileSet, precision: str) -> None:
    _, states, network, first = _learn(tiny_tiles, precision=precision, ema_decay=0.5)
    head = {name for name in first if network.get_submodule(name.rpartition(".")[0]) is network.head}
    assert len(head) == 2
    for state in states[:2]:
        assert _changed(first, state["network"]) == head
        assert {name.removeprefix("module.") for name in _changed_of_average(first, state)} == head
    everything = _changed(first, states[2]["network"])
    assert everything == first.keys(), "weights and what batch norms note"


def _changed_of_average(first: Mapping[str, Tensor], state: Mapping[str, Any]) -> set[str]:
    return _changed({f"module.{name}": tensor for name, tensor in first.items()}, state["average"])


def test_each_phase_has_a_warm_up_and_a_cosine_of_its_own(tiny_tiles: TileSet) -> None:
    reports, _, _, _ = _learn(tiny_tiles, head_epochs=5, epochs=15, learning_rate=1e-3)
    rates = [report.learning_rate for report in reports]
    # Two steps an epoch: warm-ups of one step in 10 and of two in 20.
    assert rates[0] == pytest.approx(1e-3)
    assert rates[:5] == sorted(rates[:5], reverse=True)
    assert rates[4] < 3e-4
    assert rates[5] == pytest.approx(5e-4)
    assert rates[6:] == sorted(rates[6:], reverse=True)
    assert rates[6] == pytest.approx(1e-3)
    assert rates[-1] < 5e-5


@pytest.mark.parametrize("extra", [{}, _EVERYTHING])
def test_going_on_in_either_phase_or_between_them_ends_with_the_same_bits(tiny_tiles: TileSet, extra: dict[str, Any]) -> None:
    whole, states, network, _ = _learn(tiny_tiles, **extra)
    for epoch in (1, 2, 3):
        torch.manual_seed(99)  # nothing of the old process is left
        rest, _, again, _ = _learn(tiny_tiles, resume=states[epoch - 1], **extra)
        assert [report.epoch for report in rest] == list(range(epoch + 1, 5))
        assert [report.train_loss for report in rest] == [report.train_loss for report in whole[epoch:]]
        assert not _changed(network.state_dict(), again.state_dict())


def test_patience_does_not_end_a_training_before_all_layers_have_learnt(tiny_tiles: TileSet) -> None:
    """At so high a rate the head is best in its first epoch."""
    reports, _, _, _ = _learn(
        tiny_tiles, learning_rate=10.0, layer_decay=0.1, clip_norm=0.0, head_epochs=6, epochs=12, patience=1
    )
    losses = [report.val.loss for report in reports]
    assert int(np.argmin(losses[:6])) < 5, "patience alone would have ended it"
    assert len(reports) > 6


def test_layers_decay_changes_what_is_learnt_and_one_is_the_default(tiny_tiles: TileSet) -> None:
    usual = {"trainable": "all", "epochs": 2}
    plain, _, _, _ = _learn(tiny_tiles, **usual, layer_decay=1.0)
    decayed, _, _, _ = _learn(tiny_tiles, **usual, layer_decay=0.5)
    assert [report.train_loss for report in plain] != [report.train_loss for report in decayed]
    assert plain[0].learning_rate == decayed[0].learning_rate, "the head's"
