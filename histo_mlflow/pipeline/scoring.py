"""A model scored on labelled tiles in a run: its numbers, how robust it is, what colour alone tells, the pictures."""

from functools import partial

import numpy as np

from histo_mlflow.evaluation.findings import About, Details, Findings, evaluate_baselines
from histo_mlflow.evaluation.intervals import Estimate, Floats
from histo_mlflow.evaluation.perturbed import Perturbed
from histo_mlflow.evaluation.wording import in_words
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer
from histo_mlflow.models.model import Model
from histo_mlflow.pipeline.contents import log_datasets, not_at_the_cost_of_the_model
from histo_mlflow.pipeline.draw import Drawable, draw
from histo_mlflow.pipeline.report import (
    apply_baselines,
    calibration_of,
    find_baselines,
    predictions_of,
    record_findings,
)
from histo_mlflow.pipeline.robustness import choose_tiles, probe
from histo_mlflow.pipeline.split import score_part
from histo_mlflow.tiles.tile_set import Part
from histo_mlflow.tracking.found_runs import count_looks, note_looks
from histo_mlflow.tracking.runs import Run

_SHOWN = ("balanced_accuracy", "accuracy", "macro_f1", "log_loss")


def score_model(run: Run, model: Model, part: Part, compute: Compute, costs: Floats, *, n_tried: int) -> Findings:
    """Score a model on a part, keep numbers and pictures in `run`, and return what was found out.

    Args:
        run: Where everything is kept.
        model: Is scored; its classes are those of the part, in the same order.
        part: The tiles; this is a look at their set.
        compute: What it runs on.
        costs: ``(n_classes, n_classes)``, what each confusion costs.
        n_tried: Tiles on which robustness is tried; 0 for none.
    """
    fingerprint = part.tiles.fingerprint
    log_datasets(run, [part], "evaluate")
    scored = score_part(model.folded, part, compute)
    note_looks(run, fingerprint, 1)
    looks = count_looks(run.store, fingerprint)
    about = About.of(part, model.describe(), selected=model.facts.describe_selection(), looks=looks)
    details = _collect(run, model, part, costs, _try_changes(run, model, part, compute, n_tried))
    findings = record_findings(run, predictions_of(scored, part), part.rows, about, details)
    overall = findings.evaluation.overall
    figures = {f"{part.name}/{name}": overall[name].value for name in ("accuracy", "balanced_accuracy", "macro_f1")}
    run.log_metrics({f"{part.name}/loss": scored.loss, **figures})
    drawable = Drawable(run, [findings], network=model.unpacked, device=compute.device)
    draw(drawable, {part.name: part.tiles}, partial(not_at_the_cost_of_the_model, run))
    return findings


def _try_changes(run: Run, model: Model, part: Part, compute: Compute, n_tried: int) -> list[Perturbed]:
    if n_tried:
        with not_at_the_cost_of_the_model(run, "the robustness protocol", then="The report goes without it."):
            rows = choose_tiles(part.tiles, n_tried)
            return probe(
                part.tiles, rows, lambda images: infer(model.folded, images, compute=compute, description=None).argmax(axis=1)
            )
    return []


def _collect(run: Run, model: Model, part: Part, costs: Floats, robustness: list[Perturbed]) -> Details:
    facts = model.facts
    flow = {name: np.array(counts) for name, counts in facts.tiles_per_class.items()}
    of_colour: dict[str, dict[str, Estimate]] = {}
    with not_at_the_cost_of_the_model(run, "what colour alone tells", then="The report goes without it."):
        baselines = [] if model.run_id is None else find_baselines(Run(run.store, model.run_id), part.tiles.classes)
        of_colour = evaluate_baselines(apply_baselines(baselines, part), costs)
    return Details(
        flow=flow | {part.name: part.count_classes()},
        split_unit=facts.split_unit,
        calibration=calibration_of(facts),
        costs=costs,
        robustness=robustness,
        baselines=of_colour,
    )


def describe_scores(findings: Findings) -> str:
    """Return the headline figures with their intervals, one on a line."""
    overall = findings.evaluation.overall
    return "\n".join(f"  {name.replace('_', ' '):18s} {in_words(overall[name])}" for name in _SHOWN)
