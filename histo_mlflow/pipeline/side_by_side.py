"""Several runs on one page: the folds of a cross-validation, or ended runs that somebody names."""

from collections.abc import Sequence
from pathlib import Path

from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.runs_sections import ShownRun, draw_runs
from histo_mlflow.pipeline.draw import Drawable, panels_of
from histo_mlflow.pipeline.names import name_of
from histo_mlflow.pipeline.redraw import read_drawable
from histo_mlflow.tracking.addresses import address_of
from histo_mlflow.tracking.runs import Run

_TELLING = ("test", "oof", "val")
"""Scored splits, the one that tells most of new tiles first."""


def draw_chosen(file: Path, runs: Sequence[Run]) -> None:
    """Write the page of ended runs.

    Each is shown on the split that tells most; where all are of one set, among the splits that all of them have.

    Raises:
        RequestError: A run keeps no scored tiles.
    """
    read = {run: read_drawable(run) for run in runs}
    kept = [{findings.about.split for findings in drawable.findings} for drawable in read.values()]
    for run, splits in zip(runs, kept, strict=True):
        if not splits:
            raise RequestError(f"run {run.id} keeps no scored tiles; score its model with histo evaluate, and name that run")
    sets = [{(each.about.split, each.about.fingerprint) for each in drawable.findings} for drawable in read.values()]
    shared = {split for split, _ in set.intersection(*sets)}
    common = [split for split in _TELLING if split in shared]
    shown = [show_run(drawable, common, name_of(run)) for run, drawable in read.items()]
    draw_runs(file, shown, f"{len(shown)} runs side by side")


def show_run(drawable: Drawable, splits: Sequence[str], name: str) -> ShownRun:
    """Return how a run is shown among others, on the first of `splits` that it has, or on what tells most of it."""
    by_split = {findings.about.split: findings for findings in drawable.findings}
    split = next(each for each in (*splits, *_TELLING) if each in by_split)
    panels = panels_of(drawable.curves) if drawable.curves else []
    return ShownRun(name, by_split[split], panels, address_of(drawable.run))
