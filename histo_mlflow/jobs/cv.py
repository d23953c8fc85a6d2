"""Cross-validate: a run for each fold under one parent, predictions of all tiles pooled, the best fold's model registered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.console import format_table, say
from histo_mlflow.evaluation.costs import read_costs
from histo_mlflow.evaluation.curves import draw_fold_curves
from histo_mlflow.evaluation.details import Details
from histo_mlflow.evaluation.findings import Findings, baseline_figures
from histo_mlflow.evaluation.intervals import Floats
from histo_mlflow.evaluation.metrics import Predictions
from histo_mlflow.learning.augmentation import last_augmented_epoch
from histo_mlflow.learning.compute import resolve_device
from histo_mlflow.learning.ranks import Ranks, is_first_process, joined_ranks
from histo_mlflow.options import CvConfig, flatten
from histo_mlflow.pipeline.contents import log_config, log_split_datasets, not_at_the_cost_of_the_model, training_tags
from histo_mlflow.pipeline.draw import Drawable, draw
from histo_mlflow.pipeline.inputs import LearningInputs, open_learning_inputs
from histo_mlflow.pipeline.processes import follow, launch_if_asked
from histo_mlflow.pipeline.publish import hand_on
from histo_mlflow.pipeline.record import RecordedSplit, drawable_of, record_split
from histo_mlflow.pipeline.report import count_classes, describe_provenance, describe_unit, record_findings
from histo_mlflow.pipeline.resume import check_same_tiles, reopen
from histo_mlflow.tiles.splits import Split, cut_folds
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.acceptance import check_options_accepted
from histo_mlflow.tracking.found_runs import find_nested_run
from histo_mlflow.tracking.registry import ask_to_register
from histo_mlflow.tracking.runs import Run, open_run
from histo_mlflow.tracking.store import open_store

_FIGURES = {"loss": "log_loss", "accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy"}


@dataclass(frozen=True, eq=False)
class _Folds:
    """What the folds came to: one row of figures each, the pooled predictions, what is to be drawn, the best fold."""

    table: pd.DataFrame
    pooled: Predictions
    baselines: dict[str, Predictions]
    histories: list[dict[str, list[float]]]
    drawables: list[Drawable]
    best: RecordedSplit
    best_fold: int


def cv(config: CvConfig) -> None:
    """Run `cv`; everything that can be wrong with the request is found before it begins."""
    check_options_accepted(flatten(config))
    resumed, config = reopen(config, config.keeping, entry_point="cv")
    learning = config.learning
    seed = learning.seed.seed
    inputs = open_learning_inputs(config.data, learning)
    tiles = inputs.tiles
    check_same_tiles(resumed, tiles, inputs.test)
    costs = read_costs(config.costs.costs, tiles.classes)
    splits = cut_folds(tiles, config.folds, seed=seed)
    launch_if_asked(learning.engine.processes)
    if not is_first_process():
        follow(inputs, splits, learning)
        return
    store = open_store(config.mirror)
    if config.registry.register:
        ask_to_register(store, config.registry.model_name)
    tags = training_tags("cv", tiles, inputs.test, seed=seed)
    with (
        open_run(store, "cv", tags=tags, resumed=resumed) as run,
        joined_ranks(resolve_device(learning.compute.device)) as ranks,
    ):
        log_config(run, flatten(config))
        _log_membership(run, tiles, splits)
        folds = _run_folds(run, inputs, splits, config, costs, ranks)
        pooled = _record_summary(run, tiles, folds, costs)
        table = _describe_folds(folds)
        run.describe(f"```\n{table}\n```")
        became = hand_on(
            run, folds.best, inputs, config.data, config.registry, config.gate, tags={"best_fold": str(folds.best_fold)}
        )
        curves = partial(
            draw_fold_curves,
            folds.histories,
            aug_cutoff=last_augmented_epoch(learning.augmentation, epochs=learning.fit.epochs),
            title=f"cross-validation: {tiles.source}",
        )
        for drawable in (*folds.drawables, Drawable(run, [pooled], curves)):
            draw(drawable, inputs.by_split, partial(not_at_the_cost_of_the_model, drawable.run))
            drawable.run.settle()
    say(f"\n{table}\n\n{became}\n\nNext: mlflow ui    (this run: {run.id})")


def _run_folds(
    run: Run, inputs: LearningInputs, splits: Sequence[Split], config: CvConfig, costs: Floats, ranks: Ranks
) -> _Folds:
    tiles = inputs.tiles
    probabilities = np.zeros((len(tiles), len(tiles.classes)))
    said: list[Mapping[str, Predictions]] = []
    rows, histories, drawables = [], [], []
    best, best_fold = None, 0
    for fold, split in enumerate(splits, start=1):
        title = f"fold {fold}"
        say(f"\n{title} of {len(splits)}: {len(split.train)} training and {len(split.val)} validation tiles")
        # A fold that is done already is only scored again.
        resumed = find_nested_run(run, "histo.fold", fold) if config.keeping.is_resumed else None
        tags = {"histo.entry_point": "cv", "histo.fold": fold}
        with open_run(run.store, title, parent=run, tags=tags, resumed=resumed) as fold_run:
            log_config(fold_run, flatten(config))
            recorded = record_split(
                fold_run,
                tiles,
                split,
                test=inputs.test,
                initial=inputs.initial,
                config=config.learning,
                keeping=config.keeping,
                is_calibrated=config.calibration.is_wanted,
                costs=costs,
                title=title,
                ranks=ranks,
            )
        probabilities[split.val] = recorded.val.predictions.probabilities
        said.append(recorded.baselines)
        figures = {name: recorded.val.overall[key].value for name, key in _FIGURES.items()}
        rows.append({"fold": fold, **figures, "best_epoch": recorded.result.best.best_epoch, "run_id": fold_run.id})
        histories.append({name: list(values) for name, values in recorded.history.items()})
        drawables.append(drawable_of(recorded, Run(run.store, fold_run.id)))  # its own handle: the mirror of that run has ended
        if best is None or recorded.result.val.loss < best.result.val.loss:
            best, best_fold = recorded, fold
    assert best is not None  # there are at least two folds
    pooled = Predictions(tiles.labels, probabilities, tiles.classes, tiles.groups)
    return _Folds(pd.DataFrame(rows), pooled, _pool(said, splits, pooled), histories, drawables, best, best_fold)


def _pool(said: Sequence[Mapping[str, Predictions]], splits: Sequence[Split], whole: Predictions) -> dict[str, Predictions]:
    """Return what the baselines of all folds say of all tiles, by name; a baseline that some fold lacks is left out."""
    pooled = {}
    for name in said[0]:
        if all(name in of_fold for of_fold in said):
            probabilities = np.zeros_like(whole.probabilities)
            for of_fold, split in zip(said, splits, strict=True):
                probabilities[split.val] = of_fold[name].probabilities
            pooled[name] = replace(whole, probabilities=probabilities)
    return pooled


def _log_membership(run: Run, tiles: TileSet, splits: Sequence[Split]) -> None:
    fold_of_tile = np.zeros(len(tiles), dtype=np.int64)
    for fold, split in enumerate(splits, start=1):
        fold_of_tile[split.val] = fold
    with scratch_folder() as draft:
        file = draft / "split.npz"
        np.savez_compressed(file, fold=fold_of_tile, fingerprint=np.array(tiles.fingerprint))
        run.log_file(file)
    log_split_datasets(run, tiles, {"train": np.arange(len(tiles))}, "all folds")


def _record_summary(run: Run, tiles: TileSet, folds: _Folds, costs: Floats) -> Findings:
    selected = "each tile scored by the fold that did not train on it; each fold's epoch by its own validation loss"
    rows = np.arange(len(tiles))
    details = Details(
        flow=count_classes(tiles, {"scored": rows}),
        split_unit=describe_unit(tiles),
        costs=costs,
        baselines=baseline_figures(folds.baselines, costs),
        folds=folds.table,
    )
    about = describe_provenance("oof", tiles, f"the {len(folds.table)} fold models of run {run.id}", selected, looks=0)
    pooled = record_findings(run, folds.pooled, rows, about, details)
    metrics = {f"oof/{name}": pooled.evaluation.overall[key].value for name, key in _FIGURES.items()}
    for name in _FIGURES:
        metrics |= {f"cv/{name}/mean": folds.table[name].mean(), f"cv/{name}/sd": folds.table[name].std(ddof=1)}
    run.log_metrics(metrics)
    run.set_tags({"histo.best_fold": folds.best_fold, "histo.selected": selected})
    with scratch_folder() as draft:
        file = draft / "folds.csv"
        folds.table.to_csv(file, index=False)
        run.log_file(file)
    return pooled


def _describe_folds(folds: _Folds) -> str:
    table = folds.table
    rows = [
        [f"{int(row.fold)}{' *' if row.fold == folds.best_fold else ''}", *(f"{row[name]:.4f}" for name in _FIGURES)]
        for _, row in table.iterrows()
    ]
    rows += [
        ["mean", *(f"{table[name].mean():.4f}" for name in _FIGURES)],
        ["sd", *(f"{table[name].std(ddof=1):.4f}" for name in _FIGURES)],
    ]
    header = ["fold", *(name.replace("_", " ") for name in _FIGURES)]
    return f"{format_table(header, rows)}\n* lowest validation loss"
