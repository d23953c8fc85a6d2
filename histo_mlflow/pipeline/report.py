"""From the scores of a split to its numbers in a run: probabilities, baselines, figures of merit; draws nothing."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from histo_mlflow.evaluation.abstention import choose_threshold
from histo_mlflow.evaluation.baselines import Baseline, colour_features, fit_baselines, from_json, to_json
from histo_mlflow.evaluation.calibration import Calibration, fit_temperature
from histo_mlflow.evaluation.caveats import LEAK_NOTE, Caveat, caveats_of, learnt_from, shared_groups, shared_tiles
from histo_mlflow.evaluation.drawn import TARGET_ACCURACY
from histo_mlflow.evaluation.findings import About, Details, Findings, evaluate_baselines
from histo_mlflow.evaluation.intervals import Estimate, Floats
from histo_mlflow.evaluation.kept_numbers import write_numbers
from histo_mlflow.evaluation.metrics import evaluate_predictions
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.verdict import SPLITS, verdict_of
from histo_mlflow.learning.infer import probabilities_of
from histo_mlflow.learning.reports import Scored
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.pipeline.contents import not_at_the_cost_of_the_model
from histo_mlflow.pipeline.description import glance_of, show_at_a_glance
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tiles.tile_set import Part, TileSet
from histo_mlflow.tracking.acceptance import CLASS_FIGURES, class_metric
from histo_mlflow.tracking.runs import Run
from histo_mlflow.tracking.store import Store

BASELINES_FILE = "baselines.json"
VERDICT_TAG, CAVEATS_TAG = "histo.verdict", "histo.caveats"


def calibrate(val: Scored, part: Part, *, is_applied: bool) -> Calibration:
    """Return what the validation tiles, `part`, say; nothing else may be asked, and the test set least of all."""
    known = Calibration(fit_temperature(val.logits, val.labels, part.groups), is_applied)
    predictions = predictions_of(val, part, divisor=known.divisor)
    return replace(known, abstain_below=choose_threshold(predictions, accuracy=TARGET_ACCURACY))


def calibration_of(facts: ModelFacts) -> Calibration:
    """Return what the facts of a model say of its calibration."""
    return Calibration(facts.temperature, facts.is_calibrated, facts.abstain_below)


def predictions_of(scored: Scored, part: Part, *, divisor: float = 1.0) -> Predictions:
    """Return labels and probabilities of the tiles of `part`, in their order, with their groups if they have any."""
    logits = scored.logits if divisor == 1 else scored.logits / np.float32(divisor)
    return Predictions(scored.labels, probabilities_of(logits), part.tiles.classes, part.groups)


def record_baselines(run: Run, split: Split) -> list[Baseline]:
    """Fit the baselines on the training tiles, keep them in `run` for later evaluations, and return them."""
    tiles = split.tiles
    baselines: list[Baseline] = []
    if tiles.encoder:  # of which no colour is known
        return baselines
    with not_at_the_cost_of_the_model(run, BASELINES_FILE, then="A first version stays a candidate without it."):
        baselines = fit_baselines(tiles.images, tiles.labels, split.train.rows, n_classes=len(tiles.classes), seed=0)
        run.write(BASELINES_FILE, json.dumps({"classes": tiles.classes, "baselines": to_json(baselines)}))
    return baselines


def find_baselines(store: Store, run_id: str | None, classes: tuple[str, ...]) -> list[Baseline]:
    """Return the baselines that the run of a model has kept, or none if it has none for these classes."""
    if run_id is None or not (run := Run(store, run_id)).has_file(BASELINES_FILE):
        return []
    content = run.read(BASELINES_FILE, lambda file: json.loads(file.read_text()))
    return from_json(content["baselines"]) if tuple(content["classes"]) == classes else []


def apply_baselines(baselines: Sequence[Baseline], part: Part) -> dict[str, Predictions]:
    """Return what each baseline says of the tiles of `part`, by name."""
    if not baselines or part.tiles.encoder:
        return {}
    features = colour_features(part.tiles.images, part.rows)
    return {
        each.name: Predictions(part.labels, each.probabilities(features), part.tiles.classes, part.groups) for each in baselines
    }


def judge_by_colour(
    run: Run, find: Callable[[], Sequence[Baseline]], part: Part, costs: Floats
) -> tuple[dict[str, Predictions], dict[str, dict[str, Estimate]]]:
    """Return what the baselines that `find` gives say of the tiles of `part`, and their figures; of a failure, nothing."""
    said: dict[str, Predictions] = {}
    figures: dict[str, dict[str, Estimate]] = {}
    with not_at_the_cost_of_the_model(run, "what colour alone tells", then="The report goes without it."):
        said = apply_baselines(find(), part)
        figures = evaluate_baselines(said, costs)
    return said, figures


def find_leaks(learnt: TileSet, test: TileSet) -> tuple[Caveat, ...]:
    """Return what of the test tiles is among those that the model learns from, as caveats."""
    found = [] if learnt.fingerprint != test.fingerprint else [learnt_from()]
    found += [shared_tiles(note) for note in learnt.notes if note.startswith(LEAK_NOTE)]
    if learnt.groups is not None and test.groups is not None:
        own = np.unique(test.groups)
        if n_shared := len(np.intersect1d(own, learnt.groups)):
            found.append(shared_groups(n_shared, len(own)))
    return tuple(found)


def record_findings(run: Run, predictions: Predictions, part: Part, about: About, details: Details) -> Findings:
    """Evaluate predictions, keep the numbers in ``evaluation/<split>/`` of the run and its metrics, and return them.

    Args:
        run: Where they are kept.
        predictions: Labels and probabilities.
        part: The tiles, in the order of `predictions`.
        about: What was scored by what; its ``split`` names the folder.
        details: What else is shown.
    """
    names = part.tiles.given_names
    evaluation = evaluate_predictions(predictions, costs=details.costs)
    findings = Findings(evaluation, part.rows, about, details, None if names is None else names[part.rows])
    folder, remedy = f"evaluation/{about.split}", "Once that is corrected, score the model with histo evaluate."
    with run.draft(folder) as draft, not_at_the_cost_of_the_model(run, f"the tables of {folder}", then=remedy):
        write_numbers(draft, findings)
    show_at_a_glance(run, glance_of(findings))  # first: MLflow lists the metrics of a run as they have come
    values = {
        class_metric(about.split, figure, of_class.name): of_class.estimates[figure].value
        for of_class in findings.evaluation.per_class
        for figure in CLASS_FIGURES
    }
    run.log_metrics({key: value for key, value in values.items() if math.isfinite(value)})
    run.set_tags(tags_of_verdict(findings))
    return findings


def tags_of_verdict(findings: Findings) -> dict[str, str]:
    """Return the tags that say what is to be thought of a run: the verdict and the caveats of what was scored last in it."""
    names = ", ".join(caveat.name for caveat in caveats_of(findings))
    return {VERDICT_TAG: verdict_of(findings).describe(), CAVEATS_TAG: f"{SPLITS[findings.about.split]}: {names or 'none'}"}
