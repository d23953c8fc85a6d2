"""A split that is fitted and kept: metrics, checkpoints, figures and tables go to its run while and after it learns."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from histo_mlflow.config import LearningConfig
from histo_mlflow.console import describe_epoch, say
from histo_mlflow.evaluation.figures import draw_curves
from histo_mlflow.evaluation.metrics import Evaluation, evaluate_predictions
from histo_mlflow.evaluation.report import Provenance, png_of, write_evaluation
from histo_mlflow.experiment import SplitResult, epoch_metrics, run_split
from histo_mlflow.learning.checkpoints import CheckpointFacts, epoch_file_name, save_state, save_weights
from histo_mlflow.learning.fit import EpochReport, Scored
from histo_mlflow.learning.infer import probabilities_of
from histo_mlflow.learning.weights import InitialWeights
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.looks import count_looks, note_looks
from histo_mlflow.tracking.model_flavor import ModelFacts
from histo_mlflow.tracking.runs import Run

_CHECKPOINTS = "checkpoints"
_PREPROCESSING = (
    "uint8 RGB (n, height, width, 3) -> bilinear resize with antialiasing to tile_size_px -> / 255 -> "
    "ImageNet mean and standard deviation per channel; inside the network"
)


@dataclass(frozen=True, eq=False)
class RecordedSplit:
    """A fitted split, its evaluations, the sentence on how its epoch was selected, and the public metrics of each epoch."""

    run_id: str
    result: SplitResult
    val: Evaluation
    test: Evaluation | None
    selected: str
    history: Mapping[str, Sequence[float]]


def record_split(
    run: Run, tiles: TileSet, split: Split, *, test: TileSet | None, initial: InitialWeights, config: LearningConfig, title: str
) -> RecordedSplit:
    """Fit and score one split, keeping everything in `run` as soon as it exists."""
    log_split_datasets(run, tiles, {"train": split.train, "val": split.val}, title)
    if test is not None:
        log_split_datasets(run, test, {"test": np.arange(len(test))}, title)
    with tempfile.TemporaryDirectory(prefix="histo-") as draft:
        folder = Path(draft)
        np.savez_compressed(folder / "split.npz", train=split.train, val=split.val, fingerprint=np.array(tiles.fingerprint))
        run.log_file(folder / "split.npz")
        observer = _Observer(run, folder, tiles, test)
        result = run_split(tiles, split, test=test, initial=initial, config=config, on_epoch=observer)
        best = result.best
        selected = f"epoch {best.best_epoch} of {config.fit.epochs}, by validation loss, on {title} validation tiles"
        run.log_metrics({"best/epoch": best.best_epoch, "best/val_loss": best.best_val_loss})
        run.set_tags(
            {
                "histo.compute": result.compute.describe(),
                "histo.weights": result.weights_origin,
                "histo.selected": selected,
            }
        )
        curves = draw_curves(
            observer.history,
            aug_cutoff=config.augmentation.aug_cutoff,
            best_epoch=best.best_epoch,
            title=f"{title}: {tiles.source}",
        )
        (folder / "curves.png").write_bytes(png_of(curves))
        run.log_file(folder / "curves.png")
        val = record_evaluation(run, "val", tiles, split.val, result.val, selected=selected, model=f"run {run.id}", looks=0)
        tested = None
        if test is not None and result.test is not None:
            note_looks(run, test.fingerprint, config.fit.epochs + 1)
            looks = count_looks(run.store, test.fingerprint)
            tested = record_evaluation(
                run, "test", test, np.arange(len(test)), result.test, selected=selected, model=f"run {run.id}", looks=looks
            )
    return RecordedSplit(run.id, result, val, tested, selected, observer.history)


class _Observer:
    """Keeps each epoch: its metrics, its weights and the state from which training can go on."""

    def __init__(self, run: Run, folder: Path, tiles: TileSet, test: TileSet | None) -> None:
        self.history: dict[str, list[float]] = {}
        self._run, self._folder, self._tiles, self._test = run, folder, tiles, test

    def __call__(self, report: EpochReport) -> None:
        metrics = epoch_metrics(report)
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(value)
        self._run.log_metrics(metrics, step=report.epoch)
        if self._test is not None:
            note_looks(self._run, self._test.fingerprint, report.epoch)
        self._keep_weights(report)
        say(describe_epoch(report.epoch, report.epochs, metrics, is_best=report.is_best))

    def _keep_weights(self, report: EpochReport) -> None:
        network = report.state.network
        facts = CheckpointFacts(
            classes=self._tiles.classes,
            tile_size_px=int(network.tile_size_px),  # type: ignore[arg-type]
            epoch=report.epoch,
            val_loss=report.val.loss,
            data_fingerprint=self._tiles.fingerprint,
            is_synthetic=self._tiles.is_synthetic,
        )
        file = self._folder / epoch_file_name(report.epoch)
        save_weights(file, network, facts)
        self._run.log_file(file, _CHECKPOINTS)
        if report.is_best:
            self._run.log_file(file.rename(file.with_name("best.safetensors")), _CHECKPOINTS)
        else:
            file.unlink()
        state_file = self._folder / "last.pt"
        save_state(state_file, report.state)
        self._run.log_file(state_file, _CHECKPOINTS)


def record_evaluation(
    run: Run,
    name: str,
    tiles: TileSet,
    rows: NDArray[np.int64],
    scored: Scored,
    *,
    selected: str,
    model: str,
    looks: int,
) -> Evaluation:
    """Write ``evaluation/<name>/`` to the run, log its per-class figures, and return the evaluation.

    Args:
        run: Where it is kept.
        name: ``val``, ``test`` or ``oof``.
        tiles: The set that `rows` are positions in.
        rows: ``(n_tiles,)``, in the order of `scored`.
        scored: Logits and labels.
        selected: How the model was selected, in words.
        model: Which model, in words.
        looks: How often models were scored on this set, this time included; 0 for a set that selection uses.
    """
    evaluation = evaluate_predictions(scored.labels, probabilities_of(scored.logits), tiles.classes)
    about = Provenance(name, tiles.source, tiles.fingerprint, model, selected, looks, tiles.is_synthetic)
    with tempfile.TemporaryDirectory(prefix="histo-") as draft:
        write_evaluation(Path(draft), evaluation, rows, about)
        run.log_folder(Path(draft), f"evaluation/{name}")
    values = {
        f"{name}/{figure}/{of_class.name}": getattr(of_class, figure).value
        for of_class in evaluation.per_class
        for figure in ("sensitivity", "specificity")
    }
    run.log_metrics({key: value for key, value in values.items() if math.isfinite(value)})
    return evaluation


def log_split_datasets(run: Run, tiles: TileSet, parts: dict[str, NDArray[np.int64]], title: str) -> None:
    """Record each part of a tile set as a dataset of its own name, with the fingerprint of all its pixels."""
    for split, rows in parts.items():
        counts = np.bincount(tiles.labels[rows], minlength=len(tiles.classes))
        profile = {
            "n_tiles": len(rows),
            "tile_size_px": tiles.tile_size_px,
            "tiles_per_class": dict(zip(tiles.classes, counts.tolist(), strict=True)),
            "sha256": tiles.fingerprint,
        }
        run.log_dataset(
            name=f"{Path(tiles.source).name} {title} {split}"[:500],
            split=split,
            source=tiles.source,
            fingerprint=tiles.fingerprint,
            profile=yaml.safe_dump(profile, sort_keys=False),
        )


def log_config(run: Run, values: dict[str, Any]) -> None:
    """Keep the resolved options as parameters and as ``config.yaml``, which ``--config`` reads back."""
    run.log_params(values)
    with tempfile.TemporaryDirectory(prefix="histo-") as draft:
        file = Path(draft) / "config.yaml"
        file.write_text(yaml.safe_dump(values, sort_keys=False))
        run.log_file(file)


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
    )
