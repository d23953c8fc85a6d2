"""What a model says of images, written to a CSV file."""

import csv
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from histo_mlflow.base.progress import Bar
from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.base.whole_file import written_whole
from histo_mlflow.console import say
from histo_mlflow.errors import OptionError
from histo_mlflow.evaluation.options import GateOptions
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import probabilities_of
from histo_mlflow.models import exports
from histo_mlflow.models.model import Model
from histo_mlflow.models.options import OPENVINO_INT8, TORCH, RuntimeOptions
from histo_mlflow.options import stated
from histo_mlflow.pipeline.drift import Compared, Watch
from histo_mlflow.pipeline.inputs import open_calibration
from histo_mlflow.pipeline.prediction_counts import PredictionCounts
from histo_mlflow.pipeline.quantize import describe_int8, put_quantized
from histo_mlflow.pipeline.scale import middle_of
from histo_mlflow.tiles.mapped import check_unchanged
from histo_mlflow.tiles.unlabelled import ImageSource
from histo_mlflow.tracking.store import Store


def check_runtime(runtime: str, compute: Compute) -> None:
    """Raise `OptionError` unless a runtime is installed and can compute on the device."""
    if runtime == TORCH:
        return
    if compute.device.type != "cpu":
        raise OptionError(f"runtime={runtime} runs on CPUs; give device=cpu, or leave runtime out")
    exports.require(runtime)


def in_runtime(
    store: Store, model: Model, compute: Compute, asked: RuntimeOptions, margins: GateOptions
) -> tuple[Model, dict[str, Any] | None]:
    """Return the model with its network run by the runtime that is asked for, and of one in 8 bits how it compares.

    What is written for a runtime is gone afterwards. Raises as `open_calibration` and `put_quantized`.
    """
    if asked.runtime == TORCH:
        return model, None
    facts, precision = None, "bf16" if compute.is_bf16 else "fp32"
    part = open_calibration(store, model, stated(asked.calibration_data)) if asked.runtime == OPENVINO_INT8 else None
    say(f"preparing the model for {asked.runtime} ...")
    with scratch_folder() as draft:
        if part is not None:
            facts = put_quantized(model, part, draft, precision, margins)
            say(describe_int8(facts))
        else:
            exports.write(model.calibrated(), asked.runtime, draft, classes=model.classes, microns_per_pixel=None)
        run = exports.open_written(asked.runtime, draft, precision=precision)
    return replace(model, module=exports.RuntimeNetwork(run, model.facts.tile_size_px)), facts


def threshold_of(model: Model) -> float:
    """Return the probability below which `model` abstains; raises `OptionError` if it has none."""
    if model.facts.abstain_below is None:
        why = "it is a checkpoint" if model.facts.epoch is not None else "validation tiles show 99 % accuracy above none"
        raise OptionError(f"abstain=true: {model.address} has no threshold to abstain by ({why}); leave abstain out")
    return model.facts.abstain_below


def _at_scale(tiles: NDArray[Any], source: ImageSource, model: Model) -> NDArray[Any]:
    """Return the tiles as the model is to see them: all of each, or its middle."""
    return middle_of(model, tiles, source.microns_per_pixel, is_rescaled=source.is_rescaled)


def write_predictions(
    model: Model, compute: Compute, images: ImageSource, output: Path, *, counts: PredictionCounts
) -> tuple[list[str], Compared]:
    """Write a line for each image, in order; return a sentence for each that could not be read, and how all others compare.

    The file appears when it is complete. Where `counts`, to which each is added, knows when to abstain there is a column
    `abstain`: true below that probability. The images are compared with what the model was tried on.
    """
    abstain_below = counts.abstain_below
    failures: list[str] = []
    watch = Watch(model)
    is_device = output.exists() and not output.is_file()  # such as /dev/stdout, which is written as it is
    with (
        nullcontext(output) if is_device else written_whole(output) as draft,
        draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        Bar[None](total=len(images), unit="tile", desc="predict") as bar,
    ):
        writer = csv.writer(file)
        abstaining = [] if abstain_below is None else ["abstain"]
        writer.writerow([images.column, "label", *(f"prob_{name}" for name in model.classes), *abstaining])
        for blocks in images.blocks(failures):
            rows: dict[int, list[str]] = {}
            for block in blocks:
                probabilities = probabilities_of(watch.infer(_at_scale(block.images, images, model), compute=compute))
                counts.add(probabilities)
                for position, of_tile in zip(block.positions, probabilities, strict=True):
                    label, highest = model.classes[int(of_tile.argmax())], of_tile.max()
                    abstains = [] if abstain_below is None else [str(bool(highest < abstain_below)).lower()]
                    rows[position] = [images.names[position], label, *(f"{value:.9g}" for value in of_tile), *abstains]
                bar.update(len(block.positions))
            writer.writerows(rows[position] for position in sorted(rows))
        if images.array is not None:
            check_unchanged(images.array)
    return failures, watch.compared()
