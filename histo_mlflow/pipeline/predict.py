"""What a model says of images, written to a CSV file."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.console import say
from histo_mlflow.errors import OptionError
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer, probabilities_of
from histo_mlflow.models import exports
from histo_mlflow.models.model import Model
from histo_mlflow.tiles.mapped import check_unchanged
from histo_mlflow.tiles.unlabelled import ImageSource


def run_elsewhere(model: Model, runtime: str, precision: str) -> Model:
    """Return the model with its network run by another runtime, written for it to a folder that is gone afterwards."""
    say(f"preparing the model for {runtime} ...")
    with scratch_folder() as draft:
        exports.write(model.calibrated(), runtime, draft, classes=model.classes, microns_per_pixel=0.5)
        run = exports.open_written(runtime, draft, precision=precision)
    return replace(model, module=exports.RuntimeNetwork(run, model.facts.tile_size_px))


def threshold_of(model: Model) -> float:
    """Return the probability below which `model` abstains; raises `OptionError` if it has none."""
    if model.facts.abstain_below is None:
        why = "it is a checkpoint" if model.facts.epoch is not None else "none reaches 99 % accuracy on its validation tiles"
        raise OptionError(f"abstain=true: {model.address} has no threshold to abstain by ({why}); leave abstain out")
    return model.facts.abstain_below


@dataclass(frozen=True, eq=False)
class Writer:
    """Writes what a model says of images to a CSV file, which appears when it is complete.

    Attributes:
        model: Is asked.
        compute: What it runs on.
        abstain_below: Probability below which a column `abstain` is true; None for no such column.
    """

    model: Model
    compute: Compute
    abstain_below: float | None

    def write(self, images: ImageSource, output: Path) -> list[str]:
        """Write a line for each image, in order, and return a sentence for each that could not be read."""
        failures: list[str] = []
        # A device such as /dev/stdout is written as it is; a file is renamed into place when it is complete.
        draft = output if output.exists() and not output.is_file() else output.with_name(output.name + ".draft")
        try:
            with (
                draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
                tqdm(total=len(images), unit="tile", desc="predict", disable=None, leave=False) as bar,
            ):
                writer = csv.writer(file)
                abstaining = [] if self.abstain_below is None else ["abstain"]
                writer.writerow([images.column, "label", *(f"prob_{name}" for name in self.model.classes), *abstaining])
                for blocks in images.blocks(failures):
                    rows: dict[int, list[str]] = {}
                    for block in blocks:
                        probabilities = probabilities_of(infer(self.model.folded, block.images, compute=self.compute))
                        for position, of_tile in zip(block.positions, probabilities, strict=True):
                            rows[position] = [images.names[position], *self._cells(of_tile)]
                        bar.update(len(block.positions))
                    writer.writerows(rows[position] for position in sorted(rows))
            if images.array is not None:
                check_unchanged(images.array)
            if draft != output:
                draft.replace(output)
        finally:
            if draft != output:
                draft.unlink(missing_ok=True)
        return failures

    def _cells(self, probabilities: NDArray[np.float32]) -> list[str]:
        cells = [self.model.classes[int(probabilities.argmax())], *(f"{value:.9g}" for value in probabilities)]
        if self.abstain_below is not None:
            cells.append(str(bool(probabilities.max() < self.abstain_below)).lower())
        return cells
