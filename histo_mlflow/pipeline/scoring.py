"""A model scored on labelled tiles in a run: its numbers, how robust it is, what colour alone tells, the pictures."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.progress import Bar
from histo_mlflow.evaluation.caveats import caveats_of
from histo_mlflow.evaluation.findings import About, Details, Findings
from histo_mlflow.evaluation.intervals import Floats
from histo_mlflow.evaluation.perturbed import Perturbed
from histo_mlflow.evaluation.verdict import verdict_of
from histo_mlflow.evaluation.wording import in_words
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer
from histo_mlflow.models.model import Model
from histo_mlflow.pipeline.contents import log_datasets, not_at_the_cost_of_the_model
from histo_mlflow.pipeline.draw import Drawable, draw
from histo_mlflow.pipeline.report import calibration_of, find_baselines, judge_by_colour, predictions_of, record_findings
from histo_mlflow.pipeline.scale import find_caveats
from histo_mlflow.pipeline.split import score_part
from histo_mlflow.tiles.perturbations import PROTOCOL
from histo_mlflow.tiles.tile_set import Part, TileSet
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
    findings = record_findings(run, predictions_of(scored, part), part, about, details)
    overall = findings.evaluation.overall
    figures = {f"{part.name}/{name}": overall[name].value for name in ("accuracy", "balanced_accuracy", "macro_f1")}
    run.log_metrics({f"{part.name}/loss": scored.loss, **figures})
    draw(Drawable(run, [findings], network=model.unpacked, device=compute.device), {part.name: part.tiles})
    return findings


def _try_changes(run: Run, model: Model, part: Part, compute: Compute, n_tried: int) -> list[Perturbed]:
    if n_tried and not part.tiles.encoder:
        with not_at_the_cost_of_the_model(run, "the robustness protocol", then="The report goes without it."):
            rows = choose_tiles(part.tiles, n_tried)
            return probe(
                part.tiles, rows, lambda images: infer(model.folded, images, compute=compute, description=None).argmax(axis=1)
            )
    return []


def _collect(run: Run, model: Model, part: Part, costs: Floats, robustness: list[Perturbed]) -> Details:
    facts = model.facts
    flow = {name: np.array(counts) for name, counts in facts.tiles_per_class.items()}
    find = partial(find_baselines, run.store, model.run_id, part.tiles.classes)
    _, of_colour = judge_by_colour(run, find, part, costs)
    return Details(
        flow=flow | {part.name: part.count_classes()},
        split_unit=facts.split_unit,
        calibration=calibration_of(facts),
        costs=costs,
        robustness=robustness,
        baselines=of_colour,
        caveats=find_caveats(model, part.tiles),
    )


def describe_scores(findings: Findings) -> str:
    """Return the verdict, the caveats and what to do next, and the headline figures with their intervals, one on a line."""
    overall, verdict = findings.evaluation.overall, verdict_of(findings)
    said = [
        verdict.describe(),
        *(f"  caveat: {caveat.words}" for caveat in caveats_of(findings)),
        f"  next: {verdict.next_step}",
    ]
    return "\n".join(said) + "\n\n" + "\n".join(f"  {name.replace('_', ' '):18s} {in_words(overall[name])}" for name in _SHOWN)


def choose_tiles(tiles: TileSet, n_tiles: int) -> NDArray[np.int64]:
    """Return at most `n_tiles` positions, the shares of the classes kept; the same ones for every model."""
    if n_tiles >= len(tiles):
        return np.arange(len(tiles))
    rng = np.random.default_rng(0)
    wanted = np.bincount(tiles.labels, minlength=len(tiles.classes)) * n_tiles / len(tiles)
    parts = []
    for label, n in enumerate(wanted):
        own = np.flatnonzero(tiles.labels == label)
        parts.append(rng.choice(own, min(len(own), max(1, round(n))), replace=False) if len(own) else own)
    return np.sort(np.concatenate(parts))


def probe(
    tiles: TileSet, rows: NDArray[np.int64], predict: Callable[[NDArray[np.uint8]], NDArray[np.int64]]
) -> list[Perturbed]:
    """Return what becomes of the predicted classes under each change of the protocol; the first entry is no change.

    Args:
        tiles: The set.
        rows: Which of its tiles are looked at.
        predict: From ``(n_tiles, size, size, 3)`` uint8 to the predicted classes ``(n_tiles,)``.
    """
    images, labels = np.array(tiles.images[rows]), tiles.labels[rows]
    clean = predict(images)
    found = [Perturbed("none", "as stored", labels, clean, clean)]
    changes = [(kind, strength, change) for kind, strengths in PROTOCOL.items() for strength, change in strengths.items()]
    for kind, strength, change in Bar(changes, desc="robustness", unit="change"):
        found.append(Perturbed(kind, strength, labels, clean, predict(np.stack([change(tile) for tile in images]))))
    return found
