"""A split that is fitted and kept: metrics, checkpoints and numbers go to its run while and after it learns; draws nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.console import describe_epoch, say
from histo_mlflow.errors import WorkError
from histo_mlflow.evaluation.curves import draw_curves
from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.intervals import Floats
from histo_mlflow.evaluation.metrics import Evaluation, Predictions
from histo_mlflow.learning.augmentation import last_augmented_epoch
from histo_mlflow.learning.fit import EpochReport
from histo_mlflow.learning.ranks import ALONE, Ranks
from histo_mlflow.models.checkpoint import CheckpointFacts, epoch_file_name, load_state, save_state, save_weights
from histo_mlflow.models.weights import InitialWeights
from histo_mlflow.options import LearningConfig, flatten
from histo_mlflow.pipeline.contents import log_split_datasets
from histo_mlflow.pipeline.draw import Drawable, load_best_network, shows_evidence
from histo_mlflow.pipeline.report import Calibration, SplitReporter, calibrate, count_classes, describe_unit
from histo_mlflow.pipeline.split import SplitResult, epoch_metrics, run_split
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.kept_checkpoints import FOLDER, LAST, KeepingOptions, keep_weights, load_last_state
from histo_mlflow.tracking.looks import count_looks, note_looks
from histo_mlflow.tracking.model_flavor import ModelFacts
from histo_mlflow.tracking.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_PREPROCESSING = (
    "uint8 RGB (n, height, width, 3) -> bilinear resize with antialiasing to tile_size_px -> / 255 -> "
    "ImageNet mean and standard deviation per channel; inside the network"
)


@dataclass(frozen=True, eq=False)
class RecordedSplit:
    """A fitted split with what was found out about it.

    Attributes:
        run_id: Where it is kept.
        split: Its tiles.
        result: The network, and what it said.
        calibration: What its validation tiles say of its probabilities.
        findings: What was found out on each scored set, by name.
        baselines: What classifiers that see only colour say of its validation tiles, by name.
        selected: How its epoch was selected, in words.
        history: The public metrics of each epoch.
        curves: Draws these.
    """

    run_id: str
    split: Split
    result: SplitResult
    calibration: Calibration
    findings: Mapping[str, Findings]
    baselines: Mapping[str, Predictions]
    selected: str
    history: Mapping[str, Sequence[float]]
    curves: Callable[[], Picture]

    @property
    def val(self) -> Evaluation:
        """Its evaluation on the tiles that selected it."""
        return self.findings["val"].evaluation

    @property
    def test(self) -> Evaluation | None:
        """Its evaluation on the test set that was watched, if there was one."""
        return self.findings["test"].evaluation if "test" in self.findings else None


def record_split(
    run: Run,
    tiles: TileSet,
    split: Split,
    *,
    test: TileSet | None,
    initial: InitialWeights,
    config: LearningConfig,
    keeping: KeepingOptions,
    is_calibrated: bool,
    costs: Floats,
    title: str,
    ranks: Ranks = ALONE,
) -> RecordedSplit:
    """Fit and score one split, keeping everything in `run` as soon as it exists; goes on where `run` has stopped."""
    log_split_datasets(run, tiles, {"train": split.train, "val": split.val}, title)
    if test is not None:
        log_split_datasets(run, test, {"test": np.arange(len(test))}, title)
    with scratch_folder() as folder:
        np.savez_compressed(folder / "split.npz", train=split.train, val=split.val, fingerprint=np.array(tiles.fingerprint))
        run.log_file(folder / "split.npz")
        state = load_last_state(run, load_state)
        observer = _Observer(run, folder, tiles, test, keeping, flatten(config), state)
        result = run_split(
            tiles, split, test=test, initial=initial, config=config, on_epoch=observer, ranks=ranks, resume=state
        )
        best = result.best
        selected = (
            f"epoch {best.best_epoch} of {len(observer.history['val/loss'])}, by validation loss, on {title} validation tiles"
        )
        run.log_metrics({"best/epoch": best.best_epoch, "best/val_loss": best.best_val_loss})
        run.set_tags(
            {
                "histo.compute": result.compute.describe() + (f", {ranks.size} processes" if ranks.size > 1 else ""),
                "histo.weights": result.weights_origin,
                "histo.selected": selected,
            }
        )
        calibration = calibrate(result.val, is_applied=is_calibrated)
        reporter = SplitReporter(run, tiles, split, calibration, costs, selected)
        findings = {}
        findings["val"], baselines = reporter.report("val", tiles, split.val, result.val, looks=0)
        if test is not None and result.test is not None:
            note_looks(run, test.fingerprint, len(observer.history["val/loss"]) + 1)
            run.settle()
            looks = count_looks(run.store, test.fingerprint)
            findings["test"], _ = reporter.report("test", test, np.arange(len(test)), result.test, looks=looks)
    curves = partial(
        draw_curves,
        observer.history,
        aug_cutoff=last_augmented_epoch(config.augmentation, epochs=config.fit.epochs),
        best_epoch=best.best_epoch,
        title=f"{title}: {tiles.source}",
    )
    return RecordedSplit(run.id, split, result, calibration, findings, baselines, selected, observer.history, curves)


def drawable_of(recorded: RecordedSplit, run: Run) -> Drawable:
    """Return what the pictures of a recorded split are drawn from: not its network, which lies in `run` if it is asked for."""
    result = recorded.result
    network = partial(load_best_network, run) if shows_evidence(result.network.tile_size_px) else lambda: None
    return Drawable(run, list(recorded.findings.values()), recorded.curves, network, result.compute.device)


class _Observer:
    """Keeps each epoch: its weights, the state from which training can go on, its metrics.

    In this order: a state then never lacks the weights that it was judged by, and metrics that a kill has kept from the store
    are in the state and are sent when the run goes on.
    """

    def __init__(
        self,
        run: Run,
        folder: Path,
        tiles: TileSet,
        test: TileSet | None,
        keeping: KeepingOptions,
        options: dict[str, Any],
        state: Mapping[str, Any] | None,
    ) -> None:
        self.history: dict[str, list[float]] = {}
        self._run, self._folder, self._tiles, self._test = run, folder, tiles, test
        self._keeping, self._options = keeping, options
        self._sent = run.logged_values("train/loss").keys()
        if state is not None:
            self.history = {name: list(values) for name, values in state["history"].items()}
            self._send_missing(state["epoch"])

    def __call__(self, report: EpochReport) -> None:
        metrics = epoch_metrics(report)
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(value)
        try:
            self._keep_weights(report)
        except WorkError:  # a full disk takes the weights, not the figures
            self._send(report.epoch)
            raise
        self._send(report.epoch)
        say(describe_epoch(report.epoch, report.epochs, metrics, is_best=report.is_best))

    def _send(self, epoch: int) -> None:
        if epoch in self._sent:
            return
        self._run.log_metrics({name: values[epoch - 1] for name, values in self.history.items()}, step=epoch)
        if self._test is not None:
            note_looks(self._run, self._test.fingerprint, epoch)

    def _send_missing(self, last_epoch: int) -> None:
        say(f"{last_epoch} epoch(s) are done")
        for epoch in range(1, last_epoch + 1):
            self._send(epoch)

    def _keep_weights(self, report: EpochReport) -> None:
        facts = CheckpointFacts(
            classes=self._tiles.classes,
            tile_size_px=int(report.network.tile_size_px),  # type: ignore[arg-type]
            epoch=report.epoch,
            val_loss=report.val.loss,
            data_fingerprint=self._tiles.fingerprint,
            is_synthetic=self._tiles.is_synthetic,
        )
        file = self._folder / epoch_file_name(report.epoch)
        save_weights(file, report.network, facts)
        older = [epoch_file_name(epoch) for epoch in range(1, report.epoch)]
        keep_weights(self._run, file, self._keeping, is_best=report.is_best, older=older)
        state_file = self._folder / LAST
        facts_of_state = {"history": self.history, "data_fingerprint": self._tiles.fingerprint, "options": self._options}
        save_state(state_file, {**report.state, **facts_of_state})
        self._run.log_file(state_file, FOLDER)


def facts_of(recorded: RecordedSplit, tiles: TileSet, *, microns_per_pixel: float) -> ModelFacts:
    """Return what travels with the model of a recorded split."""
    network = recorded.result.network
    return ModelFacts(
        classes=tiles.classes,
        tile_size_px=network.tile_size_px,
        microns_per_pixel=microns_per_pixel * tiles.tile_size_px / network.tile_size_px,
        architecture="torchvision EfficientNet-B3",
        preprocessing=_PREPROCESSING,
        weights_origin=recorded.result.weights_origin,
        data_source=tiles.source,
        data_fingerprint=tiles.fingerprint,
        is_synthetic=tiles.is_synthetic,
        selected=recorded.selected,
        tiles_per_class={
            part: counts.tolist()
            for part, counts in count_classes(
                tiles, {"training": recorded.split.train, "validation": recorded.split.val}
            ).items()
        },
        split_unit=describe_unit(tiles),
        temperature=recorded.calibration.temperature,
        is_calibrated=recorded.calibration.is_applied,
        abstain_below=recorded.calibration.threshold,
    )
