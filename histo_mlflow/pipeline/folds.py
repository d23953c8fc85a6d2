"""The folds of a cross-validation: each recorded in a run of its own, pooled, summed up in the parent run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from histo_mlflow.console import format_table, say
from histo_mlflow.evaluation.calibration import Calibration, cross_fit, scale
from histo_mlflow.evaluation.findings import About, Details, Findings, evaluate_baselines
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.learning.options import HEAD
from histo_mlflow.options import flatten
from histo_mlflow.pipeline.contents import FOLD_TAG, log_config, log_datasets
from histo_mlflow.pipeline.description import Description, folds_table, report_links
from histo_mlflow.pipeline.kept_split import keep_folds
from histo_mlflow.pipeline.names import RunName, figure_of
from histo_mlflow.pipeline.record import RecordedSplit, record_split
from histo_mlflow.pipeline.report import record_findings
from histo_mlflow.pipeline.session import Session
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.about import note
from histo_mlflow.tracking.addresses import run_page
from histo_mlflow.tracking.found_runs import nested_runs
from histo_mlflow.tracking.runs import Run, open_run

_FIGURES = {"loss": "log_loss", "accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy"}


@dataclass(frozen=True, eq=False)
class Folds:
    """The recorded folds of a set.

    Attributes:
        tiles: The set.
        recorded: The folds in order.
    """

    tiles: TileSet
    recorded: Sequence[RecordedSplit]

    @property
    def best_fold(self) -> int:
        """Number of the fold with the lowest validation loss, from 1."""
        return 1 + min(range(len(self.recorded)), key=lambda fold: self.recorded[fold].val_loss)

    @property
    def best(self) -> RecordedSplit:
        """That fold, with the choice among the folds named among its facts."""
        fold = self.recorded[self.best_fold - 1]
        chosen = f"fold {self.best_fold} of {len(self.recorded)}, by validation loss; its {fold.facts.selected}"
        return replace(fold, facts=replace(fold.facts, selected=chosen))

    @property
    def table(self) -> pd.DataFrame:
        """One row of figures for each fold."""
        return pd.DataFrame(
            {
                "fold": number,
                **{name: fold.val.overall[key].value for name, key in _FIGURES.items()},
                "best_epoch": fold.best.best_epoch,
                **self._nested(fold),
                "run_id": fold.run.id,
            }
            for number, fold in enumerate(self.recorded, start=1)
        )

    def _nested(self, fold: RecordedSplit) -> dict[str, float]:
        """Return the figures of `fold` at the epoch that the other folds choose: its own tiles have no part in that choice.

        The choice is the epoch of the lowest mean validation loss of the others. Source of the principle, that what is
        reported must not have chosen: Varma and Simon 2006, "Bias in error estimation when using cross-validation for model
        selection".
        """
        n_epochs = min(len(each.history["val/loss"]) for each in self.recorded)
        losses = [each.history["val/loss"][:n_epochs] for each in self.recorded if each is not fold]
        epoch = int(np.nan_to_num(np.mean(losses, axis=0), nan=np.inf).argmin())
        return {f"nested_{name}": fold.history[f"val/{name}"][epoch] for name in _FIGURES}

    @property
    def nested(self) -> dict[str, float]:
        """Mean over the folds of each figure at the epoch that the other folds choose."""
        table = self.table
        return {name: float(table[f"nested_{name}"].mean()) for name in _FIGURES}

    def pool(self, *, is_calibrated: bool) -> Predictions:
        """Return what is predicted for each tile of the set by the fold that has not learnt from it.

        A calibrated fold has fitted its temperature on these very tiles, so that one is taken back and each tile is scaled by
        one that was fitted on other tiles of its fold.
        """
        said = [fold.val.predictions for fold in self.recorded]
        if is_calibrated:
            factors = [1 / fold.facts.divisor for fold in self.recorded]
            said = [
                cross_fit(replace(each, probabilities=scale(each.probabilities, factor)))
                for each, factor in zip(said, factors, strict=True)
            ]
        return self._pooled(said)

    def pool_baselines(self) -> dict[str, Predictions]:
        """Return the same of the baselines, by name; a baseline that some fold lacks is left out."""
        said = [fold.baselines for fold in self.recorded]
        return {
            name: self._pooled([of_fold[name] for of_fold in said])
            for name in said[0]
            if all(name in of_fold for of_fold in said)
        }

    def _pooled(self, of_folds: Sequence[Predictions]) -> Predictions:
        tiles = self.tiles
        probabilities = np.zeros((len(tiles), len(tiles.classes)))
        for fold, predictions in zip(self.recorded, of_folds, strict=True):
            probabilities[fold.split.val.rows] = predictions.probabilities
        return Predictions(tiles.labels, probabilities, tiles.classes, tiles.groups)

    def describe(self) -> str:
        """Return the figures of the folds, their mean and standard deviation as a table."""
        table = self.table
        rows = [
            [f"{int(row.fold)}{' *' if row.fold == self.best_fold else ''}", *(f"{row[name]:.4f}" for name in _FIGURES)]
            for _, row in table.iterrows()
        ]
        rows += [
            ["mean", *(f"{table[name].mean():.4f}" for name in _FIGURES)],
            ["sd", *(f"{table[name].std(ddof=1):.4f}" for name in _FIGURES)],
            ["nested", *(f"{value:.4f}" for value in self.nested.values())],
        ]
        header = ["fold", *(name.replace("_", " ") for name in _FIGURES)]
        return f"{format_table(header, rows)}\n* lowest validation loss; nested: mean with each epoch chosen by the other folds"


def describe_pooled(run: Run, folds: Folds, pooled: Findings) -> Description:
    """Return what MLflow shows of a cross-validation: the folds too, with links to their runs."""
    rows = [{str(name): value for name, value in row.items()} for row in folds.table.to_dict("records")]
    best = f"Best fold, whose model is handed on: {folds.best_fold}."
    return Description.of(pooled, folds_table(run, rows, list(_FIGURES)), best)


def record_folds(session: Session, splits: Sequence[Split]) -> Folds:
    """Fit and score each fold in a run nested in the session's; a fold that is done already is only scored again."""
    tiles = session.inputs.tiles
    keep_folds(session.run, tiles, splits)
    log_datasets(session.run, [tiles.part("train")], "all folds")
    recorded = []
    for number, split in enumerate(splits, start=1):
        title = f"fold {number}"
        say(f"\n{title} of {len(splits)}: {len(split.train)} training and {len(split.val)} validation tiles")
        resumed = nested_runs(session.run, FOLD_TAG).get(number) if session.options.keeping.is_resumed else None
        tags = {"histo.entry_point": "cv", FOLD_TAG: number}
        with open_run(session.run.store, title, parent=session.run, tags=tags, resumed=resumed) as run:
            log_config(run, flatten(session.options))
            links = {"Cross-validation": run_page(session.run)}
            own = replace(session, run=run, name=RunName(title), links=links, n_splits_after=len(splits) - number)
            of_fold = record_split(own, split, title=title)
        # A handle of its own for what is drawn later: the mirror of this one has ended with the run.
        recorded.append(replace(of_fold, run=Run(run.store, run.id)))
    return Folds(tiles, recorded)


def record_summary(session: Session, folds: Folds) -> Findings:
    """Evaluate the pooled predictions, keep them and the figures of the folds in the session's run, and return the findings."""
    run, tiles, costs, table = session.run, folds.tiles, session.inputs.costs, folds.table
    is_calibrated = session.options.calibration.is_wanted
    chosen = "C" if session.options.recipe.fit.trainable == HEAD else "epoch"
    selected = f"each tile scored by the fold that did not train on it; each fold's {chosen} by its own validation loss"
    part = tiles.part("oof")
    say("figures of all folds with their intervals ...")
    details = Details(
        flow={"scored": part.count_classes()},
        split_unit=folds.recorded[0].split.unit.describe(),
        calibration=Calibration(is_applied=is_calibrated),
        costs=costs,
        baselines=evaluate_baselines(folds.pool_baselines(), costs),
        folds=table,
    )
    about = About.of(part, f"the {len(table)} fold models of run {run.id}", selected=selected, looks=0)
    pooled = record_findings(run, folds.pool(is_calibrated=is_calibrated), part, about, details)
    metrics = {f"oof/{name}": pooled.evaluation.overall[key].value for name, key in _FIGURES.items()}
    for name in _FIGURES:
        metrics |= {f"cv/{name}/mean": table[name].mean(), f"cv/{name}/sd": table[name].std(ddof=1)}
        metrics[f"cv/{name}/nested"] = table[f"nested_{name}"].mean()
    run.log_metrics(metrics)
    session.name.end(run, figure_of(pooled))
    describe_pooled(run, folds, pooled).put(run, report_links(run, pooled))
    run.set_tags({"histo.best_fold": folds.best_fold})
    note(run, {"selected": selected})
    run.write("folds.csv", table.to_csv(index=False))
    return pooled
