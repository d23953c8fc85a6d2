"""Search for the augmentation cutoff and the learning rate that give the lowest validation loss.

With nothing given it tries 8 settings on demo tiles. The study is kept and goes on with the same command; --trials is the
total. More workers: --jobs here, or the same command on other machines with a --storage that they share. The ranges are in
tuning/search_space.py.
"""

import os
import sys
from pathlib import Path
from typing import Any

# Started as a script, Python looks for modules only beside this file.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from histo_mlflow.process import prepare

prepare()

import click
import optuna
from mlflow.exceptions import MlflowException
from optuna.trial import TrialState

from histo_mlflow.base.interruption import stop_with_parent
from histo_mlflow.command_line import COMMAND_SETTINGS, make_options, run_command
from histo_mlflow.console import say
from histo_mlflow.errors import Interrupted, WorkError
from histo_mlflow.jobs.train import train
from histo_mlflow.options import TrainConfig, build, flatten, option_fields
from histo_mlflow.pipeline.inputs import open_learning_inputs
from histo_mlflow.tiles.splits import FoldOptions, cut_folds, hold_out
from histo_mlflow.tracking.acceptance import check_options_accepted
from histo_mlflow.tracking.provenance import describe_origin
from histo_mlflow.tracking.runs import Run, open_run
from histo_mlflow.tracking.store import Store, open_store
from tuning.objective import Objective
from tuning.options import SearchOptions
from tuning.report import BEST_CONFIG, describe, record, repeat, summarise
from tuning.study import RUN_ID_ATTRIBUTE, open_study, place_of
from tuning.workers import PARENT_VARIABLE, start_workers, work

COMMON = (
    "data", "val_fraction", "weights", "image_size", "batch_size", "seed", "device", "precision", "model_name", "register",
    "wandb",
)  # fmt: skip


def search(options: SearchOptions, base: dict[str, Any]) -> None:
    """Run trials until the study has as many as asked for, and record what it came to.

    Args:
        options: How many, where and by whom.
        base: Values of the options of `train` that are not searched, by public name.
    """
    config = build(TrainConfig, base)
    check_options_accepted({**flatten(config), "study": options.study, "storage": options.storage})
    seed = config.learning.seed.seed
    inputs = open_learning_inputs(config.data, config.learning)
    if options.folds:
        splits = cut_folds(inputs.tiles, FoldOptions(options.folds), seed=seed)
    else:
        splits = [hold_out(inputs.tiles, config.hold_out, seed=seed)]
    asked = {name: value for name, value in base.items() if name not in {"model_name", "register", "wandb"}}
    asked["data_fingerprint"] = inputs.tiles.fingerprint
    is_worker = PARENT_VARIABLE in os.environ
    if is_worker:
        stop_with_parent(os.getppid())
    # Each worker draws its own trials, and a second call does not repeat those of the first.
    study = open_study(options, asked, seed=seed)
    if is_worker or study.get_trials(deepcopy=False):
        study.sampler.reseed_rng()
    store = open_store(config.mirror)
    if is_worker:
        parent = Run(store, os.environ[PARENT_VARIABLE])
        work(study, Objective(parent, inputs, splits, base, options.trials), options.storage)
        return
    tags = {**describe_origin(), "histo.entry_point": "tune", "histo.study": options.study, "histo.seed": seed}
    with open_run(store, f"study {options.study}", tags=tags, resumed=_earlier_run(store, study)) as run:
        study.set_user_attr(RUN_ID_ATTRIBUTE, run.id)
        run.log_params({**asked, "folds": options.folds, "study": options.study, "storage": options.storage})
        objective = Objective(run, inputs, splits, base, options.trials)
        try:
            if options.jobs > 1:
                start_workers(options.jobs, run.id)
            else:
                work(study, objective, options.storage)
        except Interrupted:
            if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
                record(run, study, base, None)
            raise
        if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            raise WorkError("no trial came to its end; narrow the ranges in tuning/search_space.py")
        noise = repeat(study, objective, options.repeats) if options.repeats else None
        record(run, study, base, noise)
        say(f"\n{describe(study)}\n\n{summarise(study, noise)}\n")
        say(f"best values: {BEST_CONFIG.absolute()}, kept with run {run.id} too")
        say(f"study: {place_of(options.storage)}, {options.study}")
        say(f"plots: mlflow ui, run {run.id}")
    if options.train_best:
        train(build(TrainConfig, base | study.best_params))
    else:
        say(f"Next: mlflow run . -e train --env-manager local -P config={BEST_CONFIG.absolute()}")


def _earlier_run(store: Store, study: optuna.Study) -> Run | None:
    """Return the run of the study from an earlier call, if this store has it and it has ended."""
    run_id = study.user_attrs.get(RUN_ID_ATTRIBUTE)
    if run_id is None:
        return None
    try:
        found = store.client.get_run(run_id)
    except MlflowException:
        return None
    return None if found.info.status == "RUNNING" else Run(store, run_id)


def make_command() -> click.Command:
    """Return the command line of the search."""

    def callback(**values: Any) -> None:
        own = {name: values[name] for name in option_fields(SearchOptions)}
        base = {"epochs": values["epochs"], **{name: values[name] for name in COMMON}}
        search(build(SearchOptions, own), base)

    options = option_fields(TrainConfig)
    params = make_options([*option_fields(SearchOptions).values(), *(options[name] for name in COMMON)])
    params.append(click.Option(["--debug"], is_flag=True, expose_value=False, help="Show a traceback on errors."))
    return click.Command("search.py", params=params, callback=callback, help=__doc__, context_settings=COMMAND_SETTINGS)


if __name__ == "__main__":
    run_command(make_command(), prog_name="python tuning/search.py")
