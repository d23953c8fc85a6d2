import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from histo_mlflow.errors import NonFiniteLossError, OptionError
from histo_mlflow.learning.batches import TileSource, batch_rows
from histo_mlflow.learning.compute import Compute, seed_everything
from histo_mlflow.learning.fit import fit, score
from histo_mlflow.learning.norms import draw_batches, estimate_norms, learning_norms
from histo_mlflow.learning.optimiser import Objective
from histo_mlflow.learning.options import AugmentationOptions, ComputeOptions, FitOptions, Recipe, SeedOptions
from histo_mlflow.learning.ranks import ALONE
from histo_mlflow.learning.reports import EpochReport, FitResult
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.options import build
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tiles.tile_set import TileSet

CPU = Compute(torch.device("cpu"), is_bf16=False)
RECIPE = build(Recipe, {"device": "cpu", "precision": "fp32"})


def _fit(
    tiles: TileSet,
    options: FitOptions,
    *,
    seed: int = 0,
    with_test: bool = False,
    cutoff: int = 1,
    precision: str = "fp32",
    resume: Mapping[str, Any] | None = None,
    states: list[dict[str, Any]] | None = None,
) -> tuple[list[EpochReport], TileClassifier, FitResult]:
    seed_everything(seed)
    network = TileClassifier(n_classes=9, tile_size_px=tiles.tile_size_px)
    split = Split.of(tiles, np.arange(18), np.arange(18, 36))
    if with_test:
        split = replace(split, test=tiles.part("test", np.arange(36, 54)))
    reports: list[EpochReport] = []

    def observe(report: EpochReport) -> None:
        reports.append(report)
        if states is not None:
            states.append(copy.deepcopy(dict(report.state)))

    recipe = replace(
        RECIPE, fit=options, augmentation=AugmentationOptions(aug_cutoff=cutoff), seed=SeedOptions(seed),
        compute=ComputeOptions("cpu", precision),
    )  # fmt: skip
    result = fit(network, split, recipe, on_epoch=observe, resume=resume)
    return reports, network, result


def test_18_tiles_are_learnt_by_heart(tiny_tiles: TileSet) -> None:
    reports, _, _ = _fit(tiny_tiles, FitOptions(epochs=15, learning_rate=2e-3, batch_size=9), cutoff=0)
    assert reports[0].train_accuracy < 0.5
    # Dropout and stochastic depth scatter single epochs between 0.7 and 1, on each processor otherwise.
    assert np.mean([report.train_accuracy for report in reports[-5:]]) > 0.6
    assert np.mean([report.train_loss for report in reports[-5:]]) < 0.6 * reports[0].train_loss


def test_same_seed_same_run_bit_for_bit_and_another_seed_another(tiny_tiles: TileSet) -> None:
    options = FitOptions(epochs=2, batch_size=9)
    (first, network, _), (again, network_again, _) = _fit(tiny_tiles, options), _fit(tiny_tiles, options)
    other, _, _ = _fit(tiny_tiles, options, seed=1)

    assert [r.train_loss for r in first] == [r.train_loss for r in again] != [r.train_loss for r in other]
    assert [r.val.loss for r in first] == [r.val.loss for r in again]
    pairs = zip(network.state_dict().values(), network_again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_watching_a_test_set_changes_nothing(tiny_tiles: TileSet) -> None:
    options = FitOptions(epochs=2, batch_size=9)
    (without, _, chosen), (with_test, _, chosen_too) = _fit(tiny_tiles, options), _fit(tiny_tiles, options, with_test=True)
    assert [r.val.loss for r in without] == [r.val.loss for r in with_test]
    assert chosen == chosen_too
    assert without[0].test is None
    assert with_test[0].test is not None
    assert with_test[0].test.labels.tolist() == tiny_tiles.labels[36:54].tolist()


def test_network_ends_with_the_weights_of_the_lowest_validation_loss(tiny_tiles: TileSet) -> None:
    reports, network, result = _fit(tiny_tiles, FitOptions(epochs=4, learning_rate=5e-3, batch_size=9))
    losses = [report.val.loss for report in reports]
    assert result.best_epoch == 1 + int(np.argmin(losses))
    assert result.best_val_loss == min(losses)
    val = tiny_tiles.part("val", np.arange(18, 36))
    assert not network.training
    assert score(network, val, CPU).loss == min(losses)


def test_reported_training_figures_are_means_over_all_tiles(tiny_tiles: TileSet) -> None:
    """A last batch of another size must not weigh as much as the others: accuracy times 18 is a whole number."""
    reports, _, _ = _fit(tiny_tiles, FitOptions(epochs=1, batch_size=7))
    assert (reports[0].train_accuracy * 18) == pytest.approx(round(reports[0].train_accuracy * 18))
    assert [report.epoch for report in reports] == [1]


def test_an_infinite_loss_ends_the_run_with_epoch_and_step(tiny_tiles: TileSet) -> None:
    with pytest.raises(NonFiniteLossError, match=r"in epoch \d, step \d of 2"):
        _fit(tiny_tiles, FitOptions(epochs=3, learning_rate=1e30, batch_size=9))


def test_an_observer_that_raises_ends_the_training(tiny_tiles: TileSet) -> None:
    class PrunedError(Exception):
        pass

    def prune(report: EpochReport) -> None:
        raise PrunedError(report.epoch)

    split = Split.of(tiny_tiles, np.arange(18), np.arange(18))
    with pytest.raises(PrunedError, match="1"):
        fit(TileClassifier(n_classes=9, tile_size_px=32), split, RECIPE, on_epoch=prune)


@pytest.mark.usefixtures("small_network")
def test_learning_rate_warms_up_to_its_peak_and_falls(tiny_tiles: TileSet) -> None:
    reports, _, _ = _fit(tiny_tiles, FitOptions(epochs=10, learning_rate=1e-3, batch_size=9))
    rates = [report.learning_rate for report in reports]
    assert max(rates) == pytest.approx(1e-3, rel=0.05)
    assert rates[-1] < 1e-4


def test_batches_never_hold_a_single_tile() -> None:
    assert [len(batch) for batch in batch_rows(np.arange(9), 4)] == [4, 5]
    assert [len(batch) for batch in batch_rows(np.arange(10), 4)] == [4, 4, 2]
    assert np.concatenate(batch_rows(np.arange(9), 4)).tolist() == list(range(9))


_EVERYTHING = {"ema_decay": 0.5, "clip_norm": 1.0, "label_smoothing": 0.1, "class_weights": "balanced"}


@pytest.mark.parametrize(
    ("extra", "is_bf16", "from_epochs"),
    # Without instructions of its own for bf16 a processor takes five times as long.
    [({}, False, (1, 2, 3)), (_EVERYTHING, False, (1, 2, 3)), (_EVERYTHING, True, (2,))],
)
def test_going_on_from_any_epoch_ends_with_the_same_bits(
    tiny_tiles: TileSet, extra: dict[str, Any], is_bf16: bool, from_epochs: tuple[int, ...], request: pytest.FixtureRequest
) -> None:
    if extra:  # EfficientNet-B3 itself once
        request.getfixturevalue("small_network")
    options, precision = FitOptions(epochs=3, batch_size=9, **extra), "bf16" if is_bf16 else "fp32"
    states: list[dict[str, Any]] = []
    whole, network, chosen = _fit(tiny_tiles, options, cutoff=2, precision=precision, states=states)
    for epoch in from_epochs:
        torch.manual_seed(99)  # nothing of the old process is left
        rest, again, chosen_again = _fit(tiny_tiles, options, seed=0, cutoff=2, precision=precision, resume=states[epoch - 1])
        assert [r.epoch for r in rest] == list(range(epoch + 1, 4))
        assert [r.train_loss for r in rest] == [r.train_loss for r in whole[epoch:]]
        assert chosen_again == chosen
        pairs = zip(network.state_dict().values(), again.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_patience_ends_a_training_that_no_longer_improves(tiny_tiles: TileSet) -> None:
    reports, _, result = _fit(tiny_tiles, FitOptions(epochs=30, learning_rate=0.05, batch_size=9, patience=2))
    assert len(reports) == result.best_epoch + 2 < 30


def test_an_average_of_the_weights_is_judged_and_kept(tiny_tiles: TileSet) -> None:
    states: list[dict[str, Any]] = []
    reports, network, result = _fit(tiny_tiles, FitOptions(epochs=3, batch_size=9, ema_decay=0.5), states=states)
    best = states[result.best_epoch - 1]
    name = "backbone.classifier.1.weight"
    assert torch.equal(network.state_dict()[name], best["average"][f"module.{name}"])
    assert not torch.equal(network.state_dict()[name], best["network"][name])
    # Half of the old average and half of the new weights, at each of two steps an epoch.
    assert reports[0].val.loss != pytest.approx(_fit(tiny_tiles, FitOptions(epochs=1, batch_size=9))[0][0].val.loss, rel=1e-3)


@pytest.mark.usefixtures("small_network")
def test_averaged_weights_are_judged_by_statistics_of_their_own(tiny_tiles: TileSet) -> None:
    states: list[dict[str, Any]] = []
    _fit(tiny_tiles, FitOptions(epochs=2, batch_size=9, ema_decay=0.5), states=states)
    average = {name.removeprefix("module."): tensor for name, tensor in states[1]["average"].items() if name != "n_averaged"}
    network = TileClassifier(n_classes=9, tile_size_px=32)
    names = learning_norms(network.train())
    network.load_state_dict({name: tensor for name, tensor in average.items() if "running" not in name}, strict=False)
    sample = draw_batches(tiny_tiles.part("train", np.arange(18)), replace(RECIPE, fit=FitOptions(batch_size=9)), epoch=2)
    estimate_norms(network.eval(), names, TileSource(tiny_tiles.images, CPU.device), sample, CPU, ALONE)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, average[name]), name


@pytest.mark.usefixtures("small_network")
def test_frozen_batch_norms_keep_their_statistics(tiny_tiles: TileSet) -> None:
    class Frozen(TileClassifier):
        def train(self, mode: bool = True) -> "Frozen":
            super().train(mode)
            self.backbone.get_submodule("features.0").eval()
            return self

    network = Frozen(n_classes=9, tile_size_px=32)
    before = copy.deepcopy(network.state_dict())
    split = Split.of(tiny_tiles, np.arange(18), np.arange(18, 36))
    fit(network, split, replace(RECIPE, fit=FitOptions(epochs=1, batch_size=9)), on_epoch=lambda _: None)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    statistics = {name for name in changed if "running" in name}
    assert len(statistics) > 10
    assert not any(name.startswith("backbone.features.0.") for name in statistics)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.usefixtures("small_network")
def test_validation_sees_from_the_first_epochs_what_was_learnt(tiny_tiles: TileSet, ema_decay: float) -> None:
    """Asked about the tiles that they learn from, these networks read chance through 24 steps by running averages."""
    seed_everything(0)
    network = TileClassifier(n_classes=9, tile_size_px=32)
    options = FitOptions(epochs=8, batch_size=18, learning_rate=1e-2, ema_decay=ema_decay)
    recipe = replace(RECIPE, fit=options, augmentation=AugmentationOptions(aug_cutoff=0))
    accuracies: list[float] = []

    def note(report: EpochReport) -> None:
        accuracies.append(float((report.val.logits.argmax(1) == report.val.labels).mean()))

    fit(network, Split.of(tiny_tiles, np.arange(54), np.arange(54)), recipe, on_epoch=note)
    assert accuracies[1] > 0.4
    assert accuracies[-1] > 0.8


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_the_objective_of_parts_adds_up_to_torchs_mean(class_weights: str) -> None:
    labels = np.array([0] * 6 + [1] * 2 + [2])
    options = FitOptions(class_weights=class_weights, label_smoothing=0.1)
    objective = Objective(options, labels, n_classes=4, device=torch.device("cpu"))
    logits, batch = torch.randn((9, 4), generator=torch.Generator().manual_seed(0)), torch.from_numpy(labels)
    weight = torch.tensor([9 / 18, 9 / 6, 9 / 3, 0.0]) if class_weights == "balanced" else None
    expected = torch.nn.functional.cross_entropy(logits, batch, weight=weight, label_smoothing=0.1)
    parts = [objective(logits[part], batch[part], batch) for part in (slice(0, 4), slice(4, 9))]
    torch.testing.assert_close(sum(parts), expected)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"learning_rate": math.nan}, "learning_rate=nan"),
        ({"learning_rate": math.inf}, "learning_rate=inf"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"label_smoothing": 0.9}, "label_smoothing=0.9"),
        ({"clip_norm": math.nan}, "clip_norm=nan"),
        ({"ema_decay": 1.0}, "ema_decay=1.0"),
        ({"class_weights": "rare"}, "class_weights=rare"),
        ({"patience": -1}, "patience=-1"),
    ],
)
def test_options_without_sense_are_refused(values: dict[str, float], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        FitOptions(**values)  # type: ignore[arg-type]
