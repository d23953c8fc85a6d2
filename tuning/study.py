"""The Optuna study: opened, checked against what is asked, and counted, however many workers share it."""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from histo_mlflow.base.progress import in_time
from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.errors import OptionError, WorkError

from .options import HYPERBAND, NONE, RANDOM, SearchOptions
from .search_space import Space, suggest

optuna.logging.set_verbosity(optuna.logging.WARNING)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
RUN_ID_ATTRIBUTE = "mlflow_run_id"
ASKED_ATTRIBUTE = "asked"
_MAX_RETRIES = 3
_STARTUP_TRIALS = 5
_MAX_P_OF_FOLDS = 0.15
_LOCK_SECONDS = 30
_OTHER_NAME = "give another name with --study"


class SurplusTrialError(Exception):
    """Enough other trials are finished or under way; this one is not needed."""


def open_study(options: SearchOptions, asked: dict[str, Any], *, seed: int) -> optuna.Study:
    """Return the study, new or going on.

    Args:
        options: Where it is kept and how it searches.
        asked: What all its trials share; another value than the stored one is refused, but for ``data``.
        seed: Of the sampler.

    Raises:
        OptionError: The storage can't be used, or the study was made with something else.
        WorkError: The storage is locked or gone.
    """
    # Heartbeats and the multivariate sampler are marked so for years.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    asked = {**asked, "search_space": describe_space(Space.of(options, epochs=asked["epochs"]))}
    try:
        study = optuna.create_study(
            storage=_storage(options),
            study_name=options.study,
            load_if_exists=True,
            sampler=_sampler(options.sampler, seed),
            pruner=_pruner(options, epochs=asked["epochs"]),
        )
        directions = [direction.name.lower() for direction in study.directions]
        known = study.user_attrs.get(ASKED_ATTRIBUTE)
    except (OperationalError, StorageInternalError) as error:
        raise _unusable(options.storage, error) from None
    except (SQLAlchemyError, ImportError, ValueError, AssertionError) as error:
        raise OptionError(
            f"storage={hide_secrets(options.storage)} can't be used ({_first_line(error)}); for instance sqlite:///optuna.db"
        ) from None
    if directions != ["minimize"]:
        raise OptionError(f"study={options.study} was made to {' and '.join(directions)}, not to minimize; {_OTHER_NAME}")
    if known is None:
        study.set_user_attr(ASKED_ATTRIBUTE, asked)
    elif changed := [key for key in asked if key != "data" and asked[key] != known.get(key, asked[key])]:
        before, now = known.get(changed[0]), asked[changed[0]]
        raise OptionError(
            f"study={options.study} was made with another {changed[0]} ({before}, now {now}), so its trials can't be "
            f"compared; {_OTHER_NAME}"
        )
    return study


def describe_space(space: Space) -> dict[str, str]:
    """Return the ranges of what is searched by name, as text.

    Raises:
        OptionError: A range in tuning/search_space.py is upside down or has a step that makes no sense.
    """
    drawn = optuna.create_study().ask()
    try:
        suggest(drawn, space)
    except ValueError as error:
        raise OptionError(f"tuning/search_space.py: {_first_line(error)}") from None
    return {name: repr(distribution) for name, distribution in drawn.distributions.items()}


def describe_values(values: Mapping[str, Any]) -> str:
    """Return values of options in words."""
    return ", ".join(f"{name}={describe_value(value)}" for name, value in values.items())


def describe_value(value: object) -> str:
    """Return a value in words, a number to four digits."""
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)


def describe_standing(study: optuna.Study, loss: float | None) -> str:
    """Return how a loss stands to the lowest of the trials that were completed before, or what that is."""
    before = [float(trial.value) for trial in study.get_trials(deepcopy=False) if trial.value is not None]
    if loss is not None and loss < min(before, default=math.inf):
        return ", the lowest so far"
    return f" (lowest so far {min(before):.4f})" if before else ""


def describe_left(trial: optuna.Trial, n_trials: int) -> str:
    """Return how many trials are finished, `trial` included, and how long the others will take as those have gone."""
    trials = trial.study.get_trials(deepcopy=False)
    finished = [each.duration.total_seconds() for each in trials if each.state in FINISHED and each.duration is not None]
    if trial.datetime_start is not None:
        finished.append((datetime.now() - trial.datetime_start).total_seconds())  # as Optuna keeps it: without a zone
    n_left, n_workers = n_trials - len(finished), max(1, sum(each.state == TrialState.RUNNING for each in trials))
    if n_left <= 0:
        return f"{len(finished)} of {n_trials} trials are finished"
    seconds = sum(finished) / len(finished) * n_left / n_workers
    return f"{len(finished)} of {n_trials} trials are finished, about {in_time(seconds)} left for the others"


def refuse_surplus(trial: optuna.Trial, n_trials: int) -> None:
    """Raise `SurplusTrialError` if trials of lower numbers that have not failed are enough.

    Numbers are given out by the storage, one at a time; so of any number of workers exactly the right ones go on, and what they
    finish is never more than `n_trials`.
    """
    before = [each for each in trial.study.get_trials(deepcopy=False) if each.number < trial.number]
    if sum(each.state != TrialState.FAIL for each in before) >= n_trials:
        raise SurplusTrialError


def count(study: optuna.Study, *states: TrialState) -> int:
    """Return how many trials are in one of these states."""
    return len(study.get_trials(deepcopy=False, states=states))


def place_of(storage: str) -> str:
    """Return the storage with the whole path of its file, if it is one: `mlflow run` of a git address works elsewhere."""
    url = make_url(storage)
    is_file = url.get_backend_name() == "sqlite" and url.database not in {None, "", ":memory:"}
    return f"sqlite:///{Path(str(url.database)).absolute()}" if is_file else storage


@contextmanager
def reporting_storage_errors(storage: str) -> Iterator[None]:
    """Turn what the storage raises into one line."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise _unusable(storage, error) from None


def _storage(options: SearchOptions) -> optuna.storages.RDBStorage:
    is_sqlite = make_url(options.storage).get_backend_name() == "sqlite"
    return optuna.storages.RDBStorage(
        options.storage,
        engine_kwargs={"connect_args": {"timeout": _LOCK_SECONDS}} if is_sqlite else {"pool_pre_ping": True},
        heartbeat_interval=options.heartbeat,
        grace_period=4 * options.heartbeat,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=_MAX_RETRIES),
    )


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == RANDOM:
        return optuna.samplers.RandomSampler(seed=seed)
    # Multivariate: cutoff and learning rate depend on one another. Constant liar: what others are trying counts as poor, so
    # that parallel workers don't try the same.
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=_STARTUP_TRIALS)


def _pruner(options: SearchOptions, *, epochs: int) -> optuna.pruners.BasePruner:
    if options.pruner == NONE:
        return optuna.pruners.NopPruner()
    if options.folds:
        # Fold by fold against the best trial. The first that can be enough are three folds, all of them worse: p = 0.125.
        return optuna.pruners.WilcoxonPruner(p_threshold=_MAX_P_OF_FOLDS)
    if options.pruner == HYPERBAND:
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    # The first third of the epochs says little of the last (docs/tuning.md).
    return optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=epochs // 3)


def _unusable(storage: str, error: Exception) -> WorkError:
    reason = _first_line(error.__cause__ or error)
    return WorkError(f"storage={hide_secrets(storage)}: {reason}; what was finished is kept, the same command goes on with it")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
