"""What a model says of images, written to a CSV file."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from histo_mlflow.base.progress import Bar
from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.console import say
from histo_mlflow.errors import OptionError
from histo_mlflow.evaluation.options import GateOptions
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer, probabilities_of
from histo_mlflow.models import exports
from histo_mlflow.models.model import Model
from histo_mlflow.models.options import OPENVINO_INT8
from histo_mlflow.pipeline.quantize import describe_int8, put_quantized
from histo_mlflow.pipeline.scale import middle_px
from histo_mlflow.pipeline.tally import Tally
from histo_mlflow.tiles.mapped import check_unchanged
from histo_mlflow.tiles.tile_set import Part
from histo_mlflow.tiles.unlabelled import ImageSource


def run_elsewhere(model: Model, runtime: str, precision: str) -> Model:
    """Return the model with its network run by another runtime, written for it to a folder that is gone afterwards."""
    say(f"preparing the model for {runtime} ...")
    with scratch_folder() as draft:
        exports.write(model.calibrated(), runtime, draft, classes=model.classes, microns_per_pixel=None)
        run = exports.open_written(runtime, draft, precision=precision)
    return replace(model, module=exports.RuntimeNetwork(run, model.facts.tile_size_px))


def run_in_int8(model: Model, part: Part, precision: str, margins: GateOptions) -> tuple[Model, dict[str, Any]]:
    """Return the model with its network run by OpenVINO in 8 bits, and how that compares; raises as `put_quantized`."""
    say(f"preparing the model for {OPENVINO_INT8} ...")
    with scratch_folder() as draft:
        facts = put_quantized(model, part, draft, precision, margins)
        run = exports.open_written(OPENVINO_INT8, draft, precision=precision)
    say(describe_int8(facts))
    return replace(model, module=exports.RuntimeNetwork(run, model.facts.tile_size_px)), facts


def threshold_of(model: Model) -> float:
    """Return the probability below which `model` abstains; raises `OptionError` if it has none."""
    if model.facts.abstain_below is None:
        why = "it is a checkpoint" if model.facts.epoch is not None else "validation tiles show 99 % accuracy above none"
        raise OptionError(f"abstain=true: {model.address} has no threshold to abstain by ({why}); leave abstain out")
    return model.facts.abstain_below


def _at_scale(tiles: NDArray[Any], source: ImageSource, model: Model) -> NDArray[Any]:
    """Return the tiles as the model is to see them: all of each, or its middle."""
    size_px = len(tiles[0])
    wanted = middle_px(model, size_px, source.microns_per_pixel, is_rescaled=source.is_rescaled)
    if wanted == size_px:
        return tiles
    start = (size_px - wanted) // 2
    return tiles[:, start : start + wanted, start : start + wanted]


def write_predictions(model: Model, compute: Compute, images: ImageSource, output: Path, *, tally: Tally) -> list[str]:
    """Write a line for each image, in order, count them, and return a sentence for each that could not be read.

    The file appears when it is complete. Where the `tally` knows when to abstain it has a column `abstain`: true below that
    probability.
    """
    abstain_below = tally.abstain_below
    failures: list[str] = []
    # A device such as /dev/stdout is written as it is; a file is renamed into place when it is complete.
    draft = output if output.exists() and not output.is_file() else output.with_name(output.name + ".draft")
    try:
        with (
            draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
            Bar[None](total=len(images), unit="tile", desc="predict") as bar,
        ):
            writer = csv.writer(file)
            abstaining = [] if abstain_below is None else ["abstain"]
            writer.writerow([images.column, "label", *(f"prob_{name}" for name in model.classes), *abstaining])
            for blocks in images.blocks(failures):
                rows: dict[int, list[str]] = {}
                for block in blocks:
                    probabilities = probabilities_of(
                        infer(model.folded, _at_scale(block.images, images, model), compute=compute)
                    )
                    tally.add(probabilities)
                    for position, of_tile in zip(block.positions, probabilities, strict=True):
                        label, highest = model.classes[int(of_tile.argmax())], of_tile.max()
                        abstains = [] if abstain_below is None else [str(bool(highest < abstain_below)).lower()]
                        rows[position] = [images.names[position], label, *(f"{value:.9g}" for value in of_tile), *abstains]
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
