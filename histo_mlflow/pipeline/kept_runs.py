"""What an ended run keeps for its pictures, read back from the store; the tiles are opened where they still are the same."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from histo_mlflow.base.plain_values import read_yaml_mapping
from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.curves import draw_curves, draw_fold_curves
from histo_mlflow.evaluation.findings import About, Findings
from histo_mlflow.evaluation.kept_numbers import read_comparison, read_numbers
from histo_mlflow.evaluation.paired import Comparison
from histo_mlflow.learning.options import Recipe
from histo_mlflow.options import build
from histo_mlflow.pipeline.contents import FOLD_TAG
from histo_mlflow.pipeline.draw import Drawable, load_best_network
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.found_runs import nested_runs
from histo_mlflow.tracking.runs import Run

_SPLITS = ("val", "test", "oof")
_CURVES = tuple(f"{split}/{figure}" for split in ("train", "val", "test") for figure in ("loss", "accuracy"))


def read_drawable(run: Run) -> Drawable:
    """Return what the curves and reports of a run are drawn from; it may be nothing.

    Raises:
        TileFormatError: What it keeps of a scored split is damaged, or of a version that has kept less.
    """
    findings, config = _read_findings(run), read_config(run)
    source = findings[0].about.source if findings else config.get("data")
    recipe = build(Recipe, config)
    aug_cutoff = recipe.augmentation.last_epoch(epochs=recipe.fit.epochs)
    if history := _read_history(run):
        fold = run.tags().get(FOLD_TAG)
        title = f"{f'fold {fold}' if fold else 'hold-out'}: {source}"
        best_epoch = 1 + int(np.argmin(history["val/loss"]))
        curves = partial(draw_curves, history, aug_cutoff=aug_cutoff, best_epoch=best_epoch, title=title)
        return Drawable(run, findings, curves, partial(load_best_network, run))
    if histories := [each for fold in nested_runs(run, FOLD_TAG).values() if (each := _read_history(fold))]:
        title = f"cross-validation: {source}"
        return Drawable(run, findings, partial(draw_fold_curves, histories, aug_cutoff=aug_cutoff, title=title))
    return Drawable(run, findings)


def read_compared(run: Run) -> tuple[Comparison, About] | None:
    """Return the comparison of two models that a run keeps, or None."""
    if not run.has_file("comparison/comparison.json"):
        return None
    return run.read("comparison", read_comparison)


def read_config(run: Run) -> Mapping[str, Any]:
    """Return the options of a run by public name."""
    if not run.has_file("config.yaml"):
        return {}
    return run.read("config.yaml", read_yaml_mapping)


def reopen_tiles(source: str, tile_size_px: int, fingerprint: str) -> TileSet:
    """Return the tiles that a run has named, as it has opened them.

    Raises:
        RequestError: They are not there any more, or are not the same.
        WorkError: They can't be read.
    """
    tiles = open_tiles(source, image_size=tile_size_px)
    if tiles.fingerprint != fingerprint:
        raise RequestError(f"{source!r} holds other tiles (SHA-256 {tiles.fingerprint[:12]}, was {fingerprint[:12]})")
    return tiles


def _read_findings(run: Run) -> list[Findings]:
    kept = (f"evaluation/{split}" for split in _SPLITS)
    return [run.read(folder, read_numbers) for folder in kept if run.has_file(f"{folder}/summary.json")]


def _read_history(run: Run) -> dict[str, Sequence[float]]:
    """Return loss and accuracy of each epoch, by public name; nothing of a run that has not learnt."""
    histories = {name: list(run.logged_values(name).values()) for name in _CURVES}
    return {name: values for name, values in histories.items() if values} if histories["val/loss"] else {}
