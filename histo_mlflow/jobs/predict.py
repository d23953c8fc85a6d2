"""Write a label and the probabilities of every image of a source to a CSV file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from histo_mlflow.errors import UnreadableTilesError
from histo_mlflow.evaluation.options import AbstentionOptions, Int8Options
from histo_mlflow.jobs import job
from histo_mlflow.learning.options import ComputeOptions
from histo_mlflow.models.options import RuntimeOptions
from histo_mlflow.options import JobOptions, option, output_file
from histo_mlflow.pipeline.options import ScoringOptions
from histo_mlflow.pipeline.shown import Shown
from histo_mlflow.tiles.options import ScaleOptions


@dataclass(frozen=True, kw_only=True)
class Predict(JobOptions):
    """Write a label and probabilities for every image to a CSV file.

    The images need no labels.
    """

    output: str = option("predictions.csv", "CSV file to write.")
    microns_per_pixel: float = option(0.0, "Width of a pixel of the images in micrometres; 0: not given.", at_least=0)
    scoring: ScoringOptions
    scale: ScaleOptions
    abstention: AbstentionOptions
    compute: ComputeOptions
    runtime: RuntimeOptions
    gate: Int8Options


@dataclass(frozen=True)
class PredictResult(Shown):
    """What was predicted; stands for its file wherever a path does, in `open` or `pandas.read_csv`.

    Attributes:
        path: The CSV file.
        model: Which one.
        counts: Images by the class that they were called, in class order.
        mean_confidence: Mean of the highest probability of each image.
        abstained: From how many the model has abstained, or None if it was not asked to.
    """

    path: Path
    model: str
    counts: Mapping[str, int]
    mean_confidence: float
    abstained: int | None

    def __fspath__(self) -> str:
        return str(self.path)


@job("Use", 1, example="histo predict --data folder --output predictions.csv", keeps=False)
def predict(options: Predict) -> PredictResult:
    """Write a CSV file and return what it comes to: ``path`` or ``index``, ``label``, ``prob_<class>`` in class order.

    The file appears when it is complete. Images that can't be read are left out and listed at the end.

    Raises:
        UnreadableTilesError: Some images could not be read; all others are in the file.
    """
    from histo_mlflow.console import say, warn
    from histo_mlflow.learning.compute import resolve_compute_for_report
    from histo_mlflow.pipeline.inputs import check_form, describe_model, load_model
    from histo_mlflow.pipeline.predict import check_runtime, in_runtime, threshold_of, write_predictions
    from histo_mlflow.pipeline.prediction_counts import PredictionCounts
    from histo_mlflow.tiles.unlabelled import open_images
    from histo_mlflow.tracking.runs import begun_run
    from histo_mlflow.tracking.store import read_store

    compute = resolve_compute_for_report(options.compute)
    output = output_file(options.output)
    check_runtime(options.runtime.runtime, compute)
    images = open_images(options.scoring.data)
    store = read_store()
    model = load_model(store, options.scoring.model, compute.device)
    check_form(images.form, model, where=options.scoring.data)
    run = begun_run(store)
    model, int8 = in_runtime(store, model, compute, options.runtime, options.gate)
    if run is not None and int8 is not None:
        run.write("int8.json", json.dumps(int8, indent=2) + "\n")
    counts = PredictionCounts(model.classes, threshold_of(model) if options.abstention.abstain else None)
    images = replace(images, microns_per_pixel=options.microns_per_pixel or None, is_rescaled=options.scale.rescale)
    failures, compared = write_predictions(model, compute, images, output, counts=counts)
    compared.tell()
    compared.keep(run)
    if run is not None and output.is_file():
        run.log_file(output)
    kept = f"; kept with run {run.id} too" if run else ""
    named = describe_model(store, model)
    say(f"\n{counts.describe()}\nby {named}")
    say(f"{len(images) - len(failures)} of {len(images)} images predicted: {output}{kept}")
    if failures:
        for failure in failures:
            warn(failure)
        raise UnreadableTilesError(f"{len(failures)} of {len(images)} images could not be read and are not in {output}")
    by_class = dict(zip(counts.classes, counts.by_class.tolist(), strict=True))
    abstained = counts.n_abstained if options.abstention.abstain else None
    return PredictResult(output, named, by_class, counts.mean_confidence, abstained)
