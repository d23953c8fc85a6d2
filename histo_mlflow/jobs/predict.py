"""Write a label and the probabilities of every image of a source to a CSV file."""

import csv
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.console import say, warn
from histo_mlflow.errors import OptionError, SourceNotFoundError, UnreadableTilesError
from histo_mlflow.learning.compute import Compute, resolve_compute_for_report
from histo_mlflow.learning.infer import infer, probabilities_of
from histo_mlflow.models import exports
from histo_mlflow.options import PredictConfig
from histo_mlflow.pipeline.inputs import LoadedModel, load_model
from histo_mlflow.tiles.mapped import check_unchanged
from histo_mlflow.tiles.unlabelled import ImageSource, open_images
from histo_mlflow.tracking.runs import begun_run
from histo_mlflow.tracking.store import read_store


def predict(config: PredictConfig) -> Path:
    """Run `predict` and return the file: ``path`` or ``index``, ``label``, ``prob_<class>`` in class order.

    The file appears when it is complete. Images that can't be read are left out and listed at the end.

    Raises:
        UnreadableTilesError: Some images could not be read; all others are in the file.
    """
    compute = resolve_compute_for_report(config.compute)
    output = Path(config.output.output).absolute()  # `mlflow run` of a git address works in a folder of its own
    if not output.parent.is_dir():
        raise SourceNotFoundError(f"output={output}: the folder {output.parent} does not exist; make it first")
    if output.is_dir():
        raise OptionError(f"output={output}: is a folder; name a file in it")
    runtime = config.runtime.runtime
    if runtime != exports.TORCH:
        if compute.device.type != "cpu":
            raise OptionError(f"runtime={runtime} runs on CPUs; give device=cpu, or leave runtime out")
        exports.require(runtime)
    images = open_images(config.scoring.data)
    store = read_store()
    model = load_model(store, config.scoring.model, compute.device)
    if runtime != exports.TORCH:
        model = _in_runtime(model, runtime, config.compute.precision)
    failures: list[str] = []
    abstain_below = _threshold(model) if config.abstention.abstain else None
    _write(output, images, model, compute, abstain_below, failures)
    run = begun_run(store)
    if run is not None and output.is_file():
        run.log_file(output)
    kept = f"; kept with run {run.id} too" if run else ""
    say(f"{len(images) - len(failures)} of {len(images)} images predicted: {output}{kept}")
    if failures:
        for failure in failures:
            warn(failure)
        raise UnreadableTilesError(f"{len(failures)} of {len(images)} images could not be read and are not in {output}")
    return output


def _in_runtime(model: LoadedModel, runtime: str, precision: str) -> LoadedModel:
    """Return the model with its network run by another runtime, written for it to a folder that is gone afterwards."""
    say(f"preparing the model for {runtime} ...")
    with scratch_folder() as draft:
        exports.write(model.calibrated(), runtime, draft, classes=model.classes, microns_per_pixel=0.5)
        run = exports.open_written(runtime, draft, precision=precision)
    return replace(model, network=exports.RuntimeNetwork(run, model.tile_size_px))


def _threshold(model: LoadedModel) -> float:
    if model.facts is None or model.facts.abstain_below is None:
        why = "it is a checkpoint" if model.facts is None else "none reaches 99 % accuracy on its validation tiles"
        raise OptionError(f"abstain=true: {model.address} has no threshold to abstain by ({why}); leave abstain out")
    return model.facts.abstain_below


def _write(
    output: Path,
    images: ImageSource,
    model: LoadedModel,
    compute: Compute,
    abstain_below: float | None,
    failures: list[str],
) -> None:
    # A device such as /dev/stdout is written as it is; a file is renamed into place when it is complete.
    draft = output if output.exists() and not output.is_file() else output.with_name(output.name + ".draft")
    try:
        with (
            draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
            tqdm(total=len(images), unit="tile", desc="predict", disable=None, leave=False) as bar,
        ):
            writer = csv.writer(file)
            abstaining = [] if abstain_below is None else ["abstain"]
            writer.writerow([images.column, "label", *(f"prob_{name}" for name in model.classes), *abstaining])
            for blocks in images.blocks(failures):
                rows: dict[int, list[str]] = {}
                for block in blocks:
                    probabilities = probabilities_of(infer(model.folded, block.images, compute=compute))
                    for position, of_tile in zip(block.positions, probabilities, strict=True):
                        label = model.classes[int(of_tile.argmax())]
                        rows[position] = [images.names[position], label, *(f"{value:.9g}" for value in of_tile)]
                        if abstain_below is not None:
                            rows[position].append(str(bool(of_tile.max() < abstain_below)).lower())
                    bar.update(len(block.positions))
                writer.writerows(rows[position] for position in sorted(rows))
        if images.array is not None:
            check_unchanged(images.array)
        if draft != output:
            draft.replace(output)
    finally:
        if draft != output:
            draft.unlink(missing_ok=True)
