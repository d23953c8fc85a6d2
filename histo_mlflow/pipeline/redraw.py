"""Pictures and pages of an ended run made again from what it keeps; tiles are shown where they still are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from histo_mlflow.base.plain_values import read_yaml_mapping, reason_of
from histo_mlflow.console import say
from histo_mlflow.errors import RequestError, WorkError
from histo_mlflow.evaluation.kept_numbers import read_comparison, read_numbers
from histo_mlflow.evaluation.runs_sections import ShownRun
from histo_mlflow.learning.options import Recipe
from histo_mlflow.options import build
from histo_mlflow.pipeline.albums import Training
from histo_mlflow.pipeline.contents import FOLD_TAG, REPORT_TAG
from histo_mlflow.pipeline.draw import (
    CURVES,
    FOLD_PAGE,
    Drawable,
    curves_of,
    draw,
    draw_fold_page,
    draw_models,
    fold_curves_of,
    load_best_network,
    panels_of,
)
from histo_mlflow.pipeline.kept_split import kept_rows
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.options import DataOptions, ReadingOptions
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.found_runs import nested_runs
from histo_mlflow.tracking.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_CURVES = (*(f"{split}/{figure}" for split in ("train", "val", "test") for figure in ("loss", "accuracy")), "head/C")


def redraw(run: Run) -> dict[str, list[str]]:
    """Draw all that a run and its folds keep; return by the run's id what was drawn.

    Raises:
        TileFormatError: What it keeps of a scored split is damaged, or of a version that has kept less.
    """
    open_once = cache(_open)
    folds = nested_runs(run, FOLD_TAG)
    drawn = {each.id: _draw(each, open_once) for each in (*folds.values(), run)}
    read = {f"fold {k}": read_drawable(fold) for k, fold in folds.items()}
    judged = {name: findings for name, fold in read.items() for findings in fold.findings if findings.about.split == "val"}
    if len(judged) > 1:

        def show() -> list[ShownRun]:
            return [ShownRun(name, found, _panels(read[name])) for name, found in judged.items()]

        pooled = next((each for each in read_drawable(run).findings if each.about.split == "oof"), None)
        draw_fold_page(run, show, pooled, _or_end)
        run.settle()
        drawn[run.id].append(FOLD_PAGE)
    return drawn


def _draw(run: Run, open_once: Callable[[str, ReadingOptions, int, str], TileSet | None]) -> list[str]:
    """Draw all that a run keeps, and return what that is."""
    config = _config_of(run)
    drawable = read_drawable(run, config)
    asked = build(DataOptions, config)
    is_learner = "test_data" in config
    learnt_from = (asked.data, asked.reading)
    scored = (asked.test_data, asked.test_reading if "data" in config else asked.reading) if is_learner else learnt_from
    tiles: dict[str, TileSet] = {}
    for findings in drawable.findings:
        about, split = findings.about, findings.about.split
        source, reading = learnt_from if about.is_selected_on else scored
        found = open_once(source, reading, about.tile_size_px, about.fingerprint)
        tiles |= {} if found is None else {split: found}
    if (own := tiles.get("val")) is not None and (rows := kept_rows(run)):
        drawable = replace(drawable, training=Training(own, rows["train"], build(Recipe, config)))
    draw(drawable, tiles, _or_end)
    drawn = [*([CURVES] if drawable.curves else []), *(f"evaluation/{findings.about.split}" for findings in drawable.findings)]
    if run.has_file("comparison/comparison.json"):
        comparison, models, verdicts = run.read("comparison", read_comparison)
        found = open_once(*scored, models.tile_size_px, models.fingerprint)
        draw_models(run, comparison, models, verdicts, found, _or_end)
        drawn.append("comparison")
    if REPORT_TAG in run.tags():
        run.set_tags({REPORT_TAG: "made"})
    run.settle()
    return drawn


def _panels(drawable: Drawable) -> list[Picture]:
    return panels_of(drawable.curves) if drawable.curves else []


def _config_of(run: Run) -> Mapping[str, Any]:
    return run.read("config.yaml", read_yaml_mapping) if run.has_file("config.yaml") else {}


def read_drawable(run: Run, config: Mapping[str, Any] | None = None) -> Drawable:
    """Return what the curves and reports of a run are drawn from; it may be nothing."""
    config = _config_of(run) if config is None else config
    kept = (f"evaluation/{split}" for split in ("val", "test", "oof"))
    findings = [run.read(folder, read_numbers) for folder in kept if run.has_file(f"{folder}/summary.json")]
    source = findings[0].about.source if findings else config.get("data")
    recipe = build(Recipe, config)
    if history := _read_history(run):
        fold = run.tags().get(FOLD_TAG)
        curves = curves_of(history, recipe, f"{f'fold {fold}' if fold else 'hold-out'}: {source}")
        return Drawable(run, findings, curves, partial(load_best_network, run))
    histories = [each for fold in nested_runs(run, FOLD_TAG).values() if (each := _read_history(fold))]
    return Drawable(run, findings, fold_curves_of(histories, recipe, str(source)) if histories else None)


def _read_history(run: Run) -> dict[str, Sequence[float]]:
    """Return loss and accuracy of each epoch, by public name; nothing of a run that has not learnt."""
    histories = {name: list(run.logged_values(name).values()) for name in _CURVES}
    return {name: values for name, values in histories.items() if values} if histories["val/loss"] else {}


def _open(source: str, reading: ReadingOptions, tile_size_px: int, fingerprint: str) -> TileSet | None:
    """Return the tiles that a run has named if they still are there and the same; else None, with a line that says so."""
    try:
        tiles = open_tiles(source, image_size=tile_size_px, reading=reading)
        if tiles.fingerprint != fingerprint:
            raise RequestError(f"{source!r} holds other tiles (SHA-256 {tiles.fingerprint[:12]}, was {fingerprint[:12]})")
    except (RequestError, WorkError, OSError) as error:
        say(f"no tiles are shown: {error}")
        return None
    return tiles


@contextmanager
def _or_end(_run: Run, what: str) -> Iterator[None]:
    try:
        yield
    except (RequestError, WorkError):
        raise
    except Exception as error:
        raise WorkError(
            f"{what} could not be made ({type(error).__name__}: {reason_of(error)}); correct that and run it again"
        ) from error
