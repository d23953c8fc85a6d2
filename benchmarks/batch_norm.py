"""What validation reads by batch norm's running averages and by statistics that are estimated anew, epoch by epoch.

One training serves all arms, for statistics change nothing that is learnt: after each epoch the validation tiles are scored by
the running averages, by what `learning/norms.py` estimates, and by an estimate from all tiles. With ``--ema-decay`` averaged
weights are scored too, by averaged statistics and by estimated ones. ``--samples`` tries other numbers of tiles, other batches,
and augmented tiles.

With ``--trials`` settings are drawn as a search draws them, and it is said how well early losses tell the best from the rest,
on which pruning relies.

Prints a table and writes a JSON file: the loss, the accuracy and the seconds of each arm after each epoch, by seed.
"""

import argparse
import copy
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
import torch
from common import RESULTS, describe_machine, write_results
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tuning_choice import PRUNERS, try_pruner

from histo_mlflow.console import format_table, say
from histo_mlflow.learning.augmentation import Flip, Rotate, StainJitter, Transform, change
from histo_mlflow.learning.batches import TileSource
from histo_mlflow.learning.compute import Compute, seed_everything
from histo_mlflow.learning.fit import fit, score
from histo_mlflow.learning.norms import estimate_norms, sample_size
from histo_mlflow.learning.options import FitOptions, Recipe
from histo_mlflow.learning.ranks import Ranks
from histo_mlflow.learning.reports import EpochReport
from histo_mlflow.models.backbones import DEFAULT_BACKBONE
from histo_mlflow.models.weights import make_network
from histo_mlflow.options import build
from histo_mlflow.pipeline.inputs import open_weights
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.options import HoldOutOptions
from histo_mlflow.tiles.splits import Split, hold_out
from tuning.options import SearchOptions
from tuning.search_space import Space, suggest

_ASKED = ("backbone", "weights", "image_size", "epochs", "batch_size", "learning_rate", "ema_decay")
_SAMPLES = ((64, 64), (128, 32), (128, 128))
_Batches = Sequence[NDArray[np.int64]]


class _Augmented(TileSource):
    """Tiles as a step sees them."""

    def __init__(self, source: TileSource, transforms: Sequence[Transform]) -> None:
        self._source, self._transforms = source, transforms

    def load(self, batches: _Batches) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        for tiles in self._source.load(batches):
            yield change(tiles, self._transforms, generator, n_drawn=len(tiles))


class _Watch:
    """Takes the place of `estimate_norms`: scores by every arm, and leaves the statistics as they are."""

    def __init__(self, split: Split, network: nn.Module, *, samples: bool) -> None:
        self._split, self._network, self._samples = split, network, samples
        self.seen: dict[str, list[dict[str, float]]] = {}

    def __call__(
        self, judged: nn.Module, names: list[str], source: TileSource, batches: _Batches, compute: Compute, ranks: Ranks
    ) -> None:
        arms = {"estimated, as fit does": (source, batches), **self._other_arms(source)}
        self._network.eval()
        for network, whose in ((self._network, "weights"), (judged, "average")):
            if whose == "average" and judged is self._network:
                continue
            kept = copy.deepcopy(network.state_dict())
            self._score(f"{whose}: running averages", network, compute, seconds=0.0)
            for name, (arm_source, arm_batches) in arms.items():
                network.load_state_dict(kept)
                started = time.perf_counter()
                estimate_norms(network, names, arm_source, arm_batches, compute, ranks)
                self._score(f"{whose}: {name}", network, compute, seconds=time.perf_counter() - started)
            network.load_state_dict(kept)

    def _other_arms(self, source: TileSource) -> dict[str, tuple[TileSource, _Batches]]:
        rows = np.random.default_rng(0).permutation(self._split.train.rows)
        arms: dict[str, tuple[TileSource, _Batches]] = {f"{n} tiles": (source, _cut(rows[:n], 128)) for n in (256, len(rows))}
        if self._samples:
            turned, restained = (Flip(), Rotate()), (Flip(), Rotate(), StainJitter(0.05))
            arms |= {f"{n} tiles by {size}": (source, _cut(rows[:n], size)) for n, size in _SAMPLES}
            arms["all tiles by 32"] = (source, _cut(rows, 32))
            arms["all tiles, turned"] = (_Augmented(source, turned), _cut(rows, 128))
            arms["all tiles, turned and restained"] = (_Augmented(source, restained), _cut(rows, 128))
        return arms

    def _score(self, name: str, network: nn.Module, compute: Compute, *, seconds: float) -> None:
        scored = score(network, self._split.val, compute, "validate")
        accuracy = float((scored.logits.argmax(1) == scored.labels).mean())
        self.seen.setdefault(name, []).append({"loss": scored.loss, "accuracy": accuracy, "seconds": seconds})


def _cut(rows: NDArray[np.int64], size: int) -> _Batches:
    return np.array_split(rows, max(1, round(len(rows) / size)))


def _average_with_statistics(network: nn.Module, options: FitOptions) -> AveragedModel | None:
    """Average the statistics too, as was done before they were estimated."""
    decay = options.ema_decay
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True) if decay else None


def main() -> None:
    """Train, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", default="demo", help="tiles, as in `histo train --data`")
    parser.add_argument("--image-size", type=int, default=0, help="edge length in pixels; 0 = as stored")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE, help="as in `histo train`")
    parser.add_argument("--weights", default="none", help="as in `histo train`")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--ema-decay", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=0, help="settings drawn from the ranges of the search, in place of seeds")
    parser.add_argument("--samples", action="store_true", help="estimate from other samples too")
    parser.add_argument("--name", default="batch-norm", help="name of the file in benchmarks/results")
    asked = parser.parse_args()
    settings = list(_draw_settings(asked)) if asked.trials else [{"seed": seed} for seed in range(asked.seeds)]
    runs = []
    for setting in settings:
        runs.append(_run(asked, setting))
        facts = {**{name: value for name, value in vars(asked).items() if name != "data"}, "data": Path(asked.data).name}
        write_results(RESULTS / f"{asked.name}.json", {"machine": describe_machine("cpu"), **facts, "runs": runs})
        say(_describe(runs))
    if asked.trials:
        say(_describe_foresight(runs))


def _draw_settings(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(asked.trials):
        yield {"seed": 0, **suggest(study.ask(), Space.of(SearchOptions(), epochs=asked.epochs))}


def _run(asked: argparse.Namespace, setting: dict[str, Any]) -> dict[str, Any]:
    seed = setting["seed"]
    tiles = open_tiles(asked.data, image_size=asked.image_size)
    split = hold_out(tiles, HoldOutOptions(), seed=seed)
    seed_everything(seed)
    recipe = build(Recipe, {**{name: getattr(asked, name) for name in _ASKED}, **setting})
    initial = open_weights(recipe.network, is_synthetic=tiles.is_synthetic)
    size_px = asked.image_size or tiles.tile_size_px
    network, _ = make_network(initial, classes=tiles.classes, tile_size_px=size_px)
    watch = _Watch(split, network, samples=asked.samples)
    seconds: list[float] = []

    def note(report: EpochReport) -> None:
        seconds.append(len(split.train) / report.tiles_per_second)
        figures = {name: seen[-1] for name, seen in watch.seen.items()}
        say(f"seed {seed}, epoch {report.epoch}, {seconds[-1]:.1f} s, training loss {report.train_loss:.3f}; " + ", ".join(
            f"{name}: {each['loss']:.3f} {each['accuracy']:.2f}" for name, each in figures.items()))  # fmt: skip

    with (
        patch("histo_mlflow.learning.fit.estimate_norms", watch),
        patch("histo_mlflow.learning.fit.make_average", _average_with_statistics),
    ):
        fit(network, split, recipe, on_epoch=note)
    n_train = len(split.train)
    return {**setting, "n_train": n_train, "n_sample": sample_size(n_train), "epoch_seconds": seconds, "arms": watch.seen}


def _describe(runs: list[dict[str, Any]]) -> str:
    """Return a row for each arm: accuracies by epoch, then the lowest loss and the share of the epoch, means over the seeds."""
    rows = []
    for name in runs[0]["arms"]:
        arms = [run["arms"][name] for run in runs]
        accuracies = [mean(arm[epoch]["accuracy"] for arm in arms) for epoch in range(len(arms[0]))]
        lowest = mean(min(each["loss"] for each in arm) for arm in arms)
        late = mean(mean(each["loss"] for each in arm[-5:]) for arm in arms)
        cost = mean(
            sum(each["seconds"] for each in arm) / sum(run["epoch_seconds"]) for run, arm in zip(runs, arms, strict=True)
        )
        rows.append([name, " ".join(f"{each:.2f}" for each in accuracies), f"{lowest:.3f}", f"{late:.3f}", f"{cost:.1%}"])
    title = ["statistics", "accuracy by epoch", "lowest loss", "loss, last five", "of an epoch"]
    return f"{format_table(title, rows)}\nn = {len(runs)} seeds"


def _describe_foresight(runs: list[dict[str, Any]]) -> str:
    """Say how well the loss after a third of the epochs, where pruning begins, ranks trials by the lowest loss of each.

    And what the median rule does with them from there on, in 200 orders.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = []
    for name in runs[0]["arms"]:
        losses = np.array([[each["loss"] for each in run["arms"][name]] for run in runs])
        early = losses[:, : max(1, round(losses.shape[1] / 3))].min(axis=1)
        correlation = stats.spearmanr(early, losses.min(axis=1)).statistic
        found = try_pruner(PRUNERS["median from 1/3"], losses, n_orders=200)
        rows.append(
            [name, f"{correlation:.2f}", f"{found['saved']:.0%}", f"{found['regret']:.3f}", f"{found['kept_best']:.0%}"]
        )
    head = ["statistics", "rank correlation of early and lowest loss", "epochs saved", "nats lost", "best trial kept"]
    return f"{format_table(head, rows)}\nn = {len(runs)} trials"


if __name__ == "__main__":
    main()
