"""A search from its request to its report: opens what all trials share, has them run here or by workers, records the result."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from histo_mlflow.base.interruption import stop_with_parent
from histo_mlflow.console import say
from histo_mlflow.errors import Interrupted, NonFiniteLossError, OptionError, SourceNotFoundError, WorkError
from histo_mlflow.jobs.train import Train, train
from histo_mlflow.options import build, flatten, option_fields, stated
from histo_mlflow.pipeline.contents import Beginning
from histo_mlflow.pipeline.inputs import LearningInputs, open_learning_inputs, with_backbone
from histo_mlflow.pipeline.names import RunName
from histo_mlflow.pipeline.outlook import announce_run, describe_page, short_id
from histo_mlflow.tiles.options import FoldOptions
from histo_mlflow.tiles.splits import Split, cut_folds, hold_out
from histo_mlflow.tracking.about import note
from histo_mlflow.tracking.acceptance import check_options_accepted
from histo_mlflow.tracking.kept import kept_run
from histo_mlflow.tracking.runs import Run, open_run
from histo_mlflow.tracking.store import Store, open_store

from .objective import Objective
from .options import Tune
from .report import BEST_CONFIG, describe, describe_cost, describe_run, record, repeat, summarise
from .search_space import BACKBONE, Space
from .study import FINISHED, RUN_ID_ATTRIBUTE, SurplusTrialError, count, open_study, place_of, reporting_storage_errors
from .tune import TuneResult

PARENT_VARIABLE = "HISTO_TUNE_PARENT_RUN"
"""Environment variable with the run of the study, by which a process knows that it is a worker of another."""

_WAIT_SECONDS = 1.0
_MAX_FAILURES = 10


def run_trials(options: Tune, space: Space) -> TuneResult | None:
    """Run the trials that are missing, and record and return the result; as a worker of another process return None.

    Args:
        options: How many, where, by whom, on which tiles.
        space: What is searched.
    """
    asked_search, values = options.search, flatten(options)
    check_options_accepted(values)
    seed = options.recipe.seed.seed
    # What every training of the search shares, by the names of `train`; none but the last one sees test tiles.
    base = {name: values[name] for name in option_fields(Train) if name in values} | {"run_name": "none"}
    if space.backbones:
        base[BACKBONE] = space.backbones[0]
    shared = build(Train, {**base, "test_data": "none"}, given=options.given | {"epochs"})
    by_backbone, shared = _open_inputs(shared, space)
    base |= flatten(shared.recipe)
    inputs = by_backbone[base[BACKBONE]]

    def cut(seed: int) -> list[Split]:
        if asked_search.folds:
            return cut_folds(inputs.tiles, FoldOptions(asked_search.folds, split_by=options.split.split_by), seed=seed)
        return [hold_out(inputs.tiles, shared.split, seed=seed)]

    splits = cut(seed)
    say(f"kept together by the split: {splits[0].unit.describe()}")
    asked = _shared_by_trials(values | base, space) | {"data_fingerprint": inputs.tiles.fingerprint}
    is_worker = PARENT_VARIABLE in os.environ
    if is_worker:
        stop_with_parent(os.getppid())
    # Each worker draws its own trials, and a second call does not repeat those of the first.
    study = open_study(asked_search, asked, seed=seed)
    if is_worker or study.get_trials(deepcopy=False):
        study.sampler.reseed_rng()
    store = open_store(options.mirror, experiment=stated(options.naming.experiment))
    trial_base = flatten(shared)
    if is_worker:
        parent = Run(store, os.environ[PARENT_VARIABLE])
        _work(study, Objective(parent, by_backbone, splits, trial_base, space, asked_search.trials), asked_search.storage)
        return None
    say(describe_cost(study, options, splits[0]))
    name = RunName.of(f"study {asked_search.study}", options.naming)
    with _begin_study(study, store, options, Beginning.of("tune", name, inputs.tiles, seed=seed)) as run:
        run.log_params({**asked, "study": asked_search.study, "storage": asked_search.storage})
        objective = Objective(run, by_backbone, splits, trial_base, space, asked_search.trials)
        _finish_trials(study, objective, options, base)
        say("\ndrawing the study ...")
        record(run, study, base)
        noise = repeat(study, objective, asked_search.repeats, cut) if asked_search.repeats else None
        describe_run(run, study, noise)
        name.end(run, f"loss {study.best_value:.4f}")
        say(f"\n{describe(study)}\n\n{summarise(study, noise)}\n")
        say(f"best values: {BEST_CONFIG.absolute()}, kept with run {short_id(run)} too")
        say(f"study: {place_of(asked_search.storage)}, {asked_search.study}")
        say(f"plots: run {short_id(run)}: {describe_page(run)}")
    if asked_search.train_best:
        train(build(Train, base | study.best_params, given=frozenset(base)))
    else:
        say(f"Next: mlflow run . -e train --env-manager local -P config={BEST_CONFIG.absolute()}")
    return TuneResult(run.id, study.best_params, study.best_value)


@contextmanager
def _begin_study(study: optuna.Study, store: Store, options: Tune, beginning: Beginning) -> Iterator[Run]:
    """Open the run of the study, or the one of an earlier call again, and say where it is to be seen."""
    tags, earlier = {**beginning.tags, "histo.study": options.search.study}, _earlier_run(store, study)
    with open_run(store, beginning.name.at_first, tags=tags, resumed=earlier) as run:
        note(run, beginning.about)
        announce_run(run)
        study.set_user_attr(RUN_ID_ATTRIBUTE, run.id)
        yield run


def _open_inputs(asked: Train, space: Space) -> tuple[dict[str, LearningInputs], Train]:
    """Return what all trials read, by backbone, and the options as they suit it.

    Raises:
        OptionError: What is to be searched has no meaning for these tiles, or for what learns.
    """
    inputs, shared = open_learning_inputs(asked)
    space.check(shared.recipe.fit.trainable)
    if inputs.tiles.encoder and space.backbones:
        raise OptionError(f"backbones={','.join(space.backbones)}: data holds features of {inputs.tiles.encoder}; leave it out")
    network = shared.recipe.network
    others = {name: with_backbone(inputs, replace(network, backbone=name)) for name in space.backbones[1:]}
    return {network.backbone: inputs, **others}, shared


def _shared_by_trials(values: dict[str, Any], space: Space) -> dict[str, Any]:
    """Return the values that must be the same for trials to be comparable, by name, and where the tiles are."""
    fixed = {name: value for name, value in values.items() if name not in space.names}
    known = option_fields(Tune)
    return {name: value for name, value in fixed.items() if known[name].metadata["option"].changes_result or name == "data"}


def _finish_trials(study: optuna.Study, objective: Objective, options: Tune, base: dict[str, Any]) -> None:
    """Run trials until the study has enough; what is done is recorded, however it ends."""
    try:
        if options.search.jobs > 1:
            _start_workers(options, objective.parent.id)
        else:
            _work(study, objective, options.search.storage)
    except (Interrupted, WorkError):
        with reporting_storage_errors(options.search.storage):
            if count(study, TrialState.COMPLETE):
                record(objective.parent, study, base)
        done = count(study, *FINISHED)
        say(f"{done} of {objective.n_trials} trials are finished and kept; to go on: the same command again")
        raise
    if not count(study, TrialState.COMPLETE):
        raise WorkError("no trial was completed; narrow the ranges in tuning/search_space.py")


def _earlier_run(store: Store, study: optuna.Study) -> Run | None:
    """Return the run of the study from an earlier call, if this store has it and it has ended."""
    run_id = study.user_attrs.get(RUN_ID_ATTRIBUTE)
    if run_id is None:
        return None
    try:
        found = kept_run(store.client, run_id, asked=run_id)
    except SourceNotFoundError:
        return None
    return None if found.info.status == "RUNNING" else Run(store, run_id)


def _work(study: optuna.Study, objective: Objective, storage: str) -> None:
    """Run trials until `objective.n_trials` are finished, and wait for those of other workers.

    A trial whose worker has died is found here by its missing heartbeat, and run again.

    Raises:
        WorkError: The storage failed, or trial after trial.
    """
    with reporting_storage_errors(storage):
        n_failed_before = count(study, TrialState.FAIL)
        while (n_finished := count(study, *FINISHED)) < objective.n_trials:
            optuna.storages.fail_stale_trials(study)
            if n_finished + count(study, TrialState.RUNNING) >= objective.n_trials:
                time.sleep(_WAIT_SECONDS)  # all are under way; one may yet fail
                continue
            study.optimize(objective, n_trials=1, catch=(NonFiniteLossError, SurplusTrialError))
            if count(study, TrialState.FAIL) - n_failed_before > _MAX_FAILURES + objective.n_trials:
                raise WorkError("trial after trial fails; narrow the ranges in tuning/search_space.py")


def _start_workers(options: Tune, parent_run_id: str) -> None:
    """Start so many processes with these options as they ask for, cores divided among them, and wait; what ends this ends them.

    Raises:
        WorkError: One ended otherwise than well. The others have gone on to the end of the study.
    """
    n_workers, values = options.search.jobs, flatten(options)
    threads = max(1, (os.cpu_count() or 1) // n_workers)
    environment = {**os.environ, PARENT_VARIABLE: parent_run_id, "OMP_NUM_THREADS": str(threads)}
    environment.pop("MLFLOW_RUN_ID", None)
    # Not what was typed: a notebook has typed nothing. Relative paths hold, for the workers start in this folder.
    words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in values.items()}
    given = [f"--{name}={words[name]}" for name in sorted(options.given)]
    command = [sys.executable, str(Path(__file__).with_name("search.py")), *given]
    workers = [subprocess.Popen(command, env=environment) for _ in range(n_workers)]  # noqa: S603 - a script of ours
    try:
        codes = [worker.wait() for worker in workers]
    except BaseException:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.wait()
        raise
    if all(codes):
        raise WorkError(f"all {n_workers} workers failed; what they said is above")
