"""Cross-validate: a run for each fold under one parent, predictions of all tiles pooled, the best fold's model registered."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from histo_mlflow.jobs import job
from histo_mlflow.pipeline.options import LearningOptions
from histo_mlflow.pipeline.shown import Shown
from histo_mlflow.tiles.options import FoldOptions

if TYPE_CHECKING:
    import pandas as pd

    from histo_mlflow.evaluation.metrics import Evaluation


@dataclass(frozen=True)
class Cv(LearningOptions):
    """Cross-validate: one run per fold under a parent run.

    Each tile is scored by the fold that has not learnt from it. The model of the best fold is registered.
    """

    split: FoldOptions


@dataclass(frozen=True, eq=False)
class CvResult(Shown):
    """What a cross-validation has found.

    Attributes:
        run_id: Of the parent run in MLflow.
        model_uri: Address of the logged model of the best fold.
        version: Number of the registered version, or None.
        best_fold: Number of the fold with the lowest validation loss, from 1.
        folds: One row of figures for each fold, with the id of its run.
        oof: Evaluation of all tiles, each scored by the fold that has not learnt from it.
    """

    run_id: str
    model_uri: str
    version: str | None
    best_fold: int
    folds: "pd.DataFrame"
    oof: "Evaluation"


@job("Learn", 2, example="histo cv --data tiles.npz --folds 5")
def cv(options: Cv) -> CvResult:
    """Cross-validate; whatever is wrong with the request is found before it begins."""
    from histo_mlflow.console import say
    from histo_mlflow.evaluation.verdict import verdict_of
    from histo_mlflow.pipeline.card import OutOfFold
    from histo_mlflow.pipeline.description import describe_end, describe_figures, report_links
    from histo_mlflow.pipeline.draw import draw_folds
    from histo_mlflow.pipeline.folds import describe_pooled, record_folds, record_summary
    from histo_mlflow.pipeline.publish import hand_on
    from histo_mlflow.pipeline.session import begin, open_request
    from histo_mlflow.tiles.splits import cut_folds

    request = open_request("cv", options)
    splits = cut_folds(request.inputs.tiles, request.options.split, seed=request.seed)
    with begin(request, splits) as session:
        folds = record_folds(session, splits)
        pooled = record_summary(session, folds)
        out_of_fold, best_fold = OutOfFold(pooled, folds.nested), str(folds.best_fold)
        handed_on = hand_on(session, folds.best, out_of_fold, folds.recorded, best_fold=best_fold)
        links = {**report_links(session.run, pooled), **handed_on.links}
        describe_pooled(session.run, folds, pooled).put(session.run, links)
        draw_folds(session, folds, pooled)
    verdict, end = verdict_of(pooled).describe(), describe_end(session.run, pooled)
    say(f"\n{folds.describe()}\n\n{verdict}\n{describe_figures(pooled)}\n{handed_on.describe()}\n\n{end}")
    return CvResult(session.run.id, handed_on.model_uri, handed_on.version, folds.best_fold, folds.table, pooled.evaluation)
