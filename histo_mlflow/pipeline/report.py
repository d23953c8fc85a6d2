"""From the scores of a split to its numbers in a run: probabilities, baselines, figures of merit; draws nothing."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.evaluation.baselines import Baseline, colour_features, fit_baselines, from_json, to_json
from histo_mlflow.evaluation.calibration import fit_temperature
from histo_mlflow.evaluation.details import Details, Provenance
from histo_mlflow.evaluation.findings import Findings, baseline_figures
from histo_mlflow.evaluation.intervals import Figure, Floats
from histo_mlflow.evaluation.kept_numbers import write_numbers
from histo_mlflow.evaluation.metrics import TARGET_ACCURACY, Predictions, evaluate_predictions
from histo_mlflow.evaluation.selective import choose_threshold
from histo_mlflow.learning.fit import Scored
from histo_mlflow.learning.infer import probabilities_of
from histo_mlflow.pipeline.contents import not_at_the_cost_of_the_model
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.acceptance import CLASS_FIGURES, class_metric
from histo_mlflow.tracking.runs import Run

BASELINES_FILE = "baselines.json"


@dataclass(frozen=True)
class Calibration:
    """What validation tiles say of a network's probabilities.

    Attributes:
        temperature: That makes them fit best.
        is_applied: Whether the model divides its logits by it.
        threshold: Probability below which it should abstain, or None if no threshold reaches the accuracy aimed at.
    """

    temperature: float
    is_applied: bool
    threshold: float | None

    @property
    def divisor(self) -> float:
        """What the model divides its logits by."""
        return self.temperature if self.is_applied else 1.0


def calibrate(val: Scored, *, is_applied: bool) -> Calibration:
    """Return what the validation tiles say; nothing else may be asked, and the test set least of all."""
    temperature = fit_temperature(val.logits, val.labels)
    probabilities = probabilities_of(val.logits / np.float32(temperature if is_applied else 1.0))
    is_wrong = probabilities.argmax(axis=1) != val.labels
    threshold = choose_threshold(probabilities.max(axis=1), is_wrong, accuracy=TARGET_ACCURACY)
    return Calibration(temperature, is_applied, threshold)


def predictions_of(scored: Scored, tiles: TileSet, rows: NDArray[np.int64], *, divisor: float = 1.0) -> Predictions:
    """Return labels and probabilities of the tiles `rows`, in their order, with their groups if they have any."""
    logits = scored.logits if divisor == 1 else scored.logits / np.float32(divisor)
    groups = None if tiles.groups is None else tiles.groups[rows]
    return Predictions(scored.labels, probabilities_of(logits), tiles.classes, groups)


def record_baselines(run: Run, tiles: TileSet, split: Split, *, seed: int) -> list[Baseline]:
    """Fit the baselines on the training tiles, keep them in `run` for later evaluations, and return them."""
    baselines: list[Baseline] = []
    with (
        not_at_the_cost_of_the_model(run, BASELINES_FILE, then="A first version stays a candidate without it."),
        scratch_folder() as draft,
    ):
        baselines = fit_baselines(tiles.images, tiles.labels, split.train, n_classes=len(tiles.classes), seed=seed)
        file = draft / BASELINES_FILE
        file.write_text(json.dumps({"classes": tiles.classes, "baselines": to_json(baselines)}))
        run.log_file(file)
    return baselines


def find_baselines(run: Run, classes: tuple[str, ...]) -> list[Baseline]:
    """Return the baselines that `run` has kept, or none if it has none for these classes."""
    if not run.has_file(BASELINES_FILE):
        return []
    with scratch_folder() as draft:
        content = json.loads(run.fetch_file(BASELINES_FILE, draft).read_text())
    return from_json(content["baselines"]) if tuple(content["classes"]) == classes else []


def apply_baselines(baselines: Sequence[Baseline], tiles: TileSet, rows: NDArray[np.int64]) -> dict[str, Predictions]:
    """Return what each baseline says of the tiles `rows`, by name."""
    if not baselines:
        return {}
    features = colour_features(tiles.images, rows)
    groups = None if tiles.groups is None else tiles.groups[rows]
    return {
        each.name: Predictions(tiles.labels[rows], each.probabilities(features), tiles.classes, groups) for each in baselines
    }


def count_classes(tiles: TileSet, parts: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """Return the tiles per class ``(n_classes,)`` of each part."""
    return {name: np.bincount(tiles.labels[rows], minlength=len(tiles.classes)) for name, rows in parts.items()}


def describe_unit(tiles: TileSet) -> str:
    """Return what a split of these tiles keeps together, in words."""
    if tiles.groups is None:
        return "the tile; no patients or slides are known, so tiles of one slide may lie on both sides"
    return f"the group (patient or slide), {len(np.unique(tiles.groups))} of them, each on one side only"


def record_findings(
    run: Run, predictions: Predictions, rows: NDArray[np.int64], about: Provenance, details: Details
) -> Findings:
    """Evaluate predictions, keep the numbers in ``evaluation/<split>/`` of the run and its metrics, and return them.

    Args:
        run: Where they are kept.
        predictions: Labels and probabilities.
        rows: ``(n_tiles,)`` positions of the tiles in their set, in the order of `predictions`.
        about: What was scored by what; its ``split`` names the folder.
        details: What else is shown.
    """
    findings = Findings(evaluate_predictions(predictions, costs=details.costs), rows, about, details)
    with scratch_folder() as draft:
        with not_at_the_cost_of_the_model(
            run, f"the tables of evaluation/{about.split}", then="Once mended, score the model with histo evaluate."
        ):
            write_numbers(draft, findings)
        run.log_folder(draft, f"evaluation/{about.split}")
    values = {
        class_metric(about.split, figure, of_class.name): of_class.figures[figure].value
        for of_class in findings.evaluation.per_class
        for figure in CLASS_FIGURES
    }
    run.log_metrics({key: value for key, value in values.items() if math.isfinite(value)})
    return findings


class SplitReporter:
    """Reports what one fitted split says of one set after another."""

    def __init__(
        self,
        run: Run,
        tiles: TileSet,
        split: Split,
        calibration: Calibration,
        costs: Floats,
        selected: str,
    ) -> None:
        self._calibration = calibration
        self._run, self._tiles, self._split = run, tiles, split
        self._costs, self._selected = costs, selected
        self._baselines = record_baselines(run, tiles, split, seed=0)

    def report(
        self, name: str, scored_tiles: TileSet, rows: NDArray[np.int64], scored: Scored, *, looks: int
    ) -> tuple[Findings, dict[str, Predictions]]:
        """Record the numbers of one scored set; return them and what the baselines say of it."""
        predictions = predictions_of(scored, scored_tiles, rows, divisor=self._calibration.divisor)
        said: dict[str, Predictions] = {}
        of_colour: dict[str, dict[str, Figure]] = {}
        with not_at_the_cost_of_the_model(self._run, "what colour alone tells", then="The report goes without it."):
            said = apply_baselines(self._baselines, scored_tiles, rows)
            of_colour = baseline_figures(said, self._costs)
        flow = count_classes(self._tiles, {"training": self._split.train, "validation": self._split.val})
        if name == "test":
            flow |= count_classes(scored_tiles, {"test": rows})
        details = Details(
            flow=flow,
            split_unit=describe_unit(self._tiles),
            temperature=self._calibration.temperature,
            is_calibrated=self._calibration.is_applied,
            threshold=self._calibration.threshold,
            costs=self._costs,
            baselines=of_colour,
        )
        about = describe_provenance(name, scored_tiles, f"run {self._run.id}", self._selected, looks=looks)
        return record_findings(self._run, predictions, rows, about, details), said


def describe_provenance(split: str, tiles: TileSet, model: str, selected: str, *, looks: int) -> Provenance:
    """Return what a reader must know of a scoring of `tiles` by `model`."""
    return Provenance(split, tiles.source, tiles.fingerprint, model, selected, looks, tiles.is_synthetic, tiles.tile_size_px)
