"""Pictures and pages of a run, drawn when nothing can be lost by it any more, or later by `histo report`; keeps no number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from histo_mlflow.console import say
from histo_mlflow.evaluation.comparison_sections import draw_comparison
from histo_mlflow.evaluation.curves import FIGURES, draw_curves, draw_fold_curves
from histo_mlflow.evaluation.findings import About, Findings
from histo_mlflow.evaluation.gallery import Album
from histo_mlflow.evaluation.page import png_of
from histo_mlflow.evaluation.paired import Comparison
from histo_mlflow.evaluation.report_sections import Made, draw_report
from histo_mlflow.evaluation.runs_sections import ShownRun, draw_runs
from histo_mlflow.evaluation.verdict import SPLITS, Verdict
from histo_mlflow.learning.options import Recipe
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.pipeline.albums import SMALLEST_MAPPED_PX, Training, collect_album
from histo_mlflow.pipeline.contents import not_at_the_cost_of_the_model
from histo_mlflow.pipeline.folds import Folds
from histo_mlflow.pipeline.names import name_of
from histo_mlflow.pipeline.record import RecordedSplit, read_best_network
from histo_mlflow.pipeline.session import Session
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.addresses import address_of
from histo_mlflow.tracking.kept_checkpoints import BEST, FOLDER
from histo_mlflow.tracking.registry import REGISTERED_TAG
from histo_mlflow.tracking.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

CURVES, FOLD_PAGE = "curves.png", "folds.html"
_CPU = torch.device("cpu")

History = Mapping[str, Sequence[float]]
"""The public metrics of each epoch."""

Curves = Callable[[Sequence[str]], "Picture"]
"""From names of figures, as `FIGURES` has them, to a picture of these, epoch by epoch."""

Attempt = Callable[[Run, str], AbstractContextManager[None]]
"""From a run and what is drawn into it, in words, to the context in which that is done: it says what becomes of an error."""


@dataclass(frozen=True, eq=False)
class Drawable:
    """What the pictures of a run are drawn from.

    Attributes:
        run: That keeps them.
        findings: Of each scored split.
        curves: Draws how it went, epoch by epoch, the named figures; None where it has not learnt.
        network: Returns whom to ask for the evidence in a tile, or None.
        device: That this works on.
        training: From what it has learnt, where that is at hand.
    """

    run: Run
    findings: Sequence[Findings]
    curves: Curves | None = None
    network: Callable[[], TileClassifier | None] | None = None
    device: torch.device = _CPU
    training: Training | None = None


def curves_of(history: History, recipe: Recipe, title: str) -> Curves:
    """Return what draws how a training went."""
    best_epoch = 1 + int(np.argmin(np.nan_to_num(history["val/loss"], nan=np.inf)))
    aug_cutoff = recipe.augmentation.last_epoch(epochs=recipe.fit.epochs)
    return lambda figures: draw_curves(history, aug_cutoff=aug_cutoff, best_epoch=best_epoch, title=title, figures=figures)


def fold_curves_of(histories: Sequence[History], recipe: Recipe, source: str) -> Curves:
    """Return what draws how the trainings of all folds of the tiles `source` went."""
    aug_cutoff = recipe.augmentation.last_epoch(epochs=recipe.fit.epochs)
    title = f"cross-validation: {source}"
    return lambda figures: draw_fold_curves(histories, aug_cutoff=aug_cutoff, title=title, figures=figures)


def draw(drawable: Drawable, tiles: Mapping[str, TileSet], attempt: Attempt = not_at_the_cost_of_the_model) -> None:
    """Draw curves, and of each scored split the figures, the errors to look at and the page, into the run.

    Args:
        drawable: What is drawn.
        tiles: By name of split; errors of others are not shown.
        attempt: Each picture or page is made in; by default one that fails costs a warning.
    """
    run, network = drawable.run, drawable.network and cache(drawable.network)
    made = Made(run.tags().get(REGISTERED_TAG, ""), address_of(run))
    panels: Sequence[Picture] = ()
    if drawable.curves is not None:
        with attempt(run, CURVES):
            run.write(CURVES, png_of(drawable.curves(FIGURES)))
            panels = panels_of(drawable.curves)
    for findings in drawable.findings:
        split, album = findings.about.split, Album()
        say(f"drawing the report on the {SPLITS.get(split, split)} tiles ...")
        if split in tiles and not tiles[split].encoder:
            with attempt(run, f"the gallery of evaluation/{split}"):
                album = collect_album(findings, tiles[split], network, drawable.device, drawable.training)
        with attempt(run, f"the report of evaluation/{split}"), run.draft(f"evaluation/{split}") as folder:
            draw_report(folder, findings, album, panels, made)


def draw_split(session: Session, recorded: RecordedSplit) -> None:
    """Draw what was recorded of a split into its run."""
    curves = curves_of(recorded.history, session.options.recipe, f"{recorded.title}: {recorded.split.tiles.source}")
    findings, device = list(recorded.findings.values()), recorded.best.compute.device
    # Read back only if it is asked for.
    network = partial(load_best_network, recorded.run) if recorded.facts.tile_size_px >= SMALLEST_MAPPED_PX else None
    training = Training(recorded.split.tiles, recorded.split.train.rows, session.options.recipe)
    draw(Drawable(recorded.run, findings, curves, network, device, training), session.inputs.by_split)
    recorded.run.settle()


def draw_folds(session: Session, folds: Folds, pooled: Findings) -> None:
    """Draw each fold into its run, and what they have in common into the session's."""
    for recorded in folds.recorded:
        draw_split(session, recorded)
    curves = fold_curves_of([fold.history for fold in folds.recorded], session.options.recipe, folds.tiles.source)
    draw(Drawable(session.run, [pooled], curves), session.inputs.by_split)
    recipe = session.options.recipe

    def show() -> list[ShownRun]:
        named = {f"fold {k}": fold for k, fold in enumerate(folds.recorded, start=1)}
        return [
            ShownRun(name, fold.findings["val"], panels_of(curves_of(fold.history, recipe, name)))
            for name, fold in named.items()
        ]

    draw_fold_page(session.run, show, pooled)


def panels_of(curves: Curves) -> list[Picture]:
    """Return a picture of each figure of the curves."""
    return [curves([figure]) for figure in FIGURES]


def draw_fold_page(
    run: Run,
    show: Callable[[], Sequence[ShownRun]],
    pooled: Findings | None,
    attempt: Attempt = not_at_the_cost_of_the_model,
) -> None:
    """Draw the page of all folds side by side, as `show` gives them, into the run of a cross-validation.

    `pooled` is what all folds together have found; None where the run has ended before that.
    """
    with attempt(run, FOLD_PAGE):
        folds = show()
        whole = ShownRun(name_of(run), pooled, link=address_of(run)) if pooled else None
        run.write(FOLD_PAGE, lambda file: draw_runs(file, folds, f"{len(folds)} folds side by side", whole))


def draw_models(
    run: Run,
    comparison: Comparison,
    about: About,
    verdicts: Sequence[Verdict],
    tiles: TileSet | None,
    attempt: Attempt = not_at_the_cost_of_the_model,
) -> None:
    """Draw the page of a comparison of two models into the run; without `tiles` it shows none.

    `verdicts` are on the difference, on A and on B; none where an earlier version has kept none.
    """
    with attempt(run, "the page of comparison"), run.draft("comparison") as folder:
        images = None if tiles is None or tiles.encoder else tiles.images
        draw_comparison(folder, comparison, about, images, verdicts, None if tiles is None else tiles.given_names)


def load_best_network(run: Run) -> TileClassifier | None:
    """Return the network of the best epoch of a run, or None if it keeps none."""
    return read_best_network(run) if run.has_file(f"{FOLDER}/{BEST}") else None
