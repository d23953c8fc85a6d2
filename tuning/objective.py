"""One trial: a training like any other, in a run of its own, that reports each epoch to Optuna and may be pruned."""

from dataclasses import dataclass
from typing import Any

import optuna

from histo_mlflow.config import TrainConfig, build, flatten
from histo_mlflow.console import describe_epoch, say
from histo_mlflow.errors import Interrupted
from histo_mlflow.experiment import epoch_metrics, run_split
from histo_mlflow.inputs import LearningInputs
from histo_mlflow.learning.fit import EpochReport
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tracking.runs import Run, open_run
from tuning.search_space import suggest

RUN_ID_ATTRIBUTE = "mlflow_run_id"


@dataclass(frozen=True, eq=False)
class Objective:
    """Gives the lowest validation loss of a trial; reads no test set, for its inputs hold none.

    Attributes:
        parent: The run of the study.
        inputs: Tiles and first weights, opened once for all trials.
        split: The same for all trials.
        base: Every option that is not searched.
    """

    parent: Run
    inputs: LearningInputs
    split: Split
    base: dict[str, Any]

    def __call__(self, trial: optuna.Trial) -> float:
        """Run the trial and return its validation loss in nats."""
        values = self.base | suggest(trial, epochs=self.base["epochs"])
        config = build(TrainConfig, values)
        name = f"trial {trial.number}"
        say(f"\n{name}: " + ", ".join(f"{key}={value:.4g}" for key, value in trial.params.items()))
        tags = {"histo.entry_point": "tune", "histo.trial": trial.number}
        with open_run(self.parent.store, name, parent=self.parent, tags=tags, stopped_by=optuna.TrialPruned) as run:
            trial.set_user_attr(RUN_ID_ATTRIBUTE, run.id)
            run.log_params(flatten(config))

            def observe(report: EpochReport) -> None:
                metrics = epoch_metrics(report)
                run.log_metrics(metrics, step=report.epoch)
                say(describe_epoch(report.epoch, report.epochs, metrics, is_best=report.is_best))
                trial.report(report.val.loss, report.epoch)
                if trial.should_prune():
                    run.set_tags({"pruned": "true"})
                    raise optuna.TrialPruned(f"after epoch {report.epoch}")

            try:
                result = run_split(
                    self.inputs.tiles, self.split, initial=self.inputs.initial, config=config.learning, on_epoch=observe
                )
            except Interrupted:
                # Optuna ends a trial for exceptions, not for this one, and would leave it RUNNING for good.
                trial.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                raise
            run.log_metrics({"best/epoch": result.best.best_epoch, "best/val_loss": result.best.best_val_loss})
        return result.best.best_val_loss
