"""One trial: a training like any other, in a run of its own, that reports to Optuna and may be pruned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from histo_mlflow.console import describe_epoch, say
from histo_mlflow.errors import Interrupted
from histo_mlflow.jobs.train import Train
from histo_mlflow.learning.reports import EpochReport
from histo_mlflow.options import build, flatten
from histo_mlflow.pipeline.inputs import LearningInputs
from histo_mlflow.pipeline.names import RunName
from histo_mlflow.pipeline.split import epoch_metrics, run_split
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tracking.runs import Run, open_run

from .search_space import Space, suggest
from .study import RUN_ID_ATTRIBUTE, describe_left, describe_standing, describe_values, refuse_surplus


@dataclass(frozen=True, eq=False)
class Objective:
    """Gives the lowest validation loss of a trial, in nats; reads no test set: its inputs hold none.

    Attributes:
        parent: The run of the study.
        inputs: Tiles and first weights, by backbone, opened once for all trials.
        splits: The same for all trials; of several, the trial's loss is the mean.
        base: Every option of a training, by name; what is searched has its default.
        space: What is searched.
        n_trials: How many the study is to have.
    """

    parent: Run
    inputs: Mapping[str, LearningInputs]
    splits: Sequence[Split]
    base: dict[str, Any]
    space: Space
    n_trials: int

    def __call__(self, trial: optuna.Trial) -> float:
        """Run the trial and return its loss."""
        refuse_surplus(trial, self.n_trials)
        values = suggest(trial, self.space)
        name = f"trial {trial.number}"
        say(f"\n{name}: {describe_values(trial.params)}")
        try:
            loss = self.learn(values, name, {"histo.trial": trial.number}, trial)
            standing = describe_standing(trial.study, loss)
            say(f"{name}: validation loss {loss:.4f}{standing}; {describe_left(trial, self.n_trials)}")
            return loss
        except optuna.TrialPruned as pruned:
            say(f"{name}: pruned {pruned}{describe_standing(trial.study, None)}; {describe_left(trial, self.n_trials)}")
            raise
        except Interrupted:
            # Optuna ends a trial for exceptions, not for this one, and would leave it RUNNING for good.
            trial.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            raise

    def learn(self, values: dict[str, Any], name: str, tags: dict[str, object], trial: optuna.Trial | None = None) -> float:
        """Train with `values` in a nested run and return the validation loss, of several folds the mean.

        A `trial` is told the loss of each epoch, or with folds that of each fold, and may be pruned for it.
        """
        config = build(Train, self.base | values)
        losses: list[float] = []
        tags = {"histo.entry_point": "tune", **tags}
        with open_run(self.parent.store, name, parent=self.parent, tags=tags, stopped_by=optuna.TrialPruned) as run:
            if trial is not None:
                trial.set_user_attr(RUN_ID_ATTRIBUTE, run.id)
            run.log_params(flatten(config))
            try:
                for fold, split in enumerate(self.splits, start=1):
                    losses.append(self._learn_split(run, split, config, fold, trial))
                    if len(self.splits) > 1:
                        mean = sum(losses) / len(losses)
                        run.log_metrics({"cv/loss/mean": mean}, step=fold * config.recipe.fit.epochs)
                        _report(trial, losses[-1], fold, len(self.splits))
            except optuna.TrialPruned:
                run.set_tags({"pruned": "true"})
                raise
            loss = sum(losses) / len(losses)
            run.log_metrics({"best/val_loss": loss})
            RunName(name).end(run, f"loss {loss:.4f}")
        return loss

    def _learn_split(self, run: Run, split: Split, config: Train, fold: int, trial: optuna.Trial | None) -> float:
        is_only = len(self.splits) == 1

        def observe(epoch: EpochReport) -> None:
            metrics = epoch_metrics(epoch)
            # The epochs of the folds follow one another on one axis.
            run.log_metrics(metrics, step=(fold - 1) * epoch.epochs + epoch.epoch)
            line = describe_epoch(epoch.epoch, epoch.epochs, metrics, is_best=epoch.is_best, left=epoch.describe_left())
            say(f"{run.name}{'' if is_only else f', fold {fold}'} | {line}")  # of several workers each says whose line it is
            if is_only:
                _report(trial, epoch.val.loss, epoch.epoch, epoch.epochs)

        result = run_split(self.inputs[config.recipe.network.backbone], split, config.recipe, on_epoch=observe)
        if is_only:
            run.log_metrics({"best/epoch": result.best.best_epoch})
        return result.best.best_val_loss


def _report(trial: optuna.Trial | None, loss: float, step: int, n_steps: int) -> None:
    if trial is not None:
        trial.report(loss, step)
        if step < n_steps and trial.should_prune():  # after the last one nothing is left to save
            raise optuna.TrialPruned(f"after step {step} of {n_steps}, at {loss:.4f}")
