"""Search for the augmentation cutoff and the learning rate: ``python tuning/search.py``."""

import sys
from pathlib import Path
from typing import Any

# Started as a script, Python looks for modules only beside this file.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import optuna
import yaml
from sqlalchemy.exc import SQLAlchemyError

from histo_mlflow.command_line import make_option, run_command
from histo_mlflow.config import TrainConfig, build, option_fields
from histo_mlflow.console import format_table, say
from histo_mlflow.errors import NonFiniteLossError, OptionError, WorkError
from histo_mlflow.inputs import open_learning_inputs
from histo_mlflow.tiles.splits import hold_out
from histo_mlflow.tracking.provenance import describe_origin
from histo_mlflow.tracking.runs import Run, open_run
from histo_mlflow.tracking.store import open_store
from tuning.objective import RUN_ID_ATTRIBUTE, Objective

_SEARCHED = ("aug_cutoff", "learning_rate")
_COMMON = ("data", "val_fraction", "weights", "image_size", "batch_size", "seed", "device", "precision")
_ASKED_ATTRIBUTE = "asked"
_BEST_CONFIG = Path("best_config.yaml")


def search(*, n_trials: int, storage: str, study_name: str, base: dict[str, Any]) -> None:
    """Run trials until the study has `n_trials` that are complete or pruned, and write the best options.

    Args:
        n_trials: Total, those of earlier calls on the same study included.
        storage: An Optuna storage URL.
        study_name: Which study in it.
        base: Values of the options that are not searched, by public name.
    """
    if n_trials < 1:
        raise OptionError(f"trials={n_trials}: at least 1 is needed")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config = build(TrainConfig, base)
    inputs = open_learning_inputs(config.data, config.learning)
    seed = config.learning.seed.seed
    split = hold_out(inputs.tiles, config.hold_out, seed=seed)
    study = _open_study(storage, study_name, {**base, "data_fingerprint": inputs.tiles.fingerprint})
    # Seeded by what the study already holds, or a second call would repeat the trials of the first.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), multivariate=True, constant_liar=True)
    tags = {**describe_origin(), "histo.entry_point": "tune", "histo.study": study_name, "histo.seed": seed}
    with open_run(open_store(), f"study {study_name}", tags=tags) as run:
        done = len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)))
        study.optimize(Objective(run, inputs, split, base), n_trials=max(0, n_trials - done), catch=(NonFiniteLossError,))
        if not study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
            raise WorkError("no trial came to its end; narrow the ranges in tuning/search_space.py")
        _record(run, study, base)
    say(f"\n{_describe(study)}\n\nbest: {_BEST_CONFIG}; study: {storage}, {study_name}; runs: mlflow ui ({run.id})")
    say(f"Next: mlflow run . -e train --env-manager local -P config={_BEST_CONFIG}")


def _open_study(storage: str, name: str, asked: dict[str, Any]) -> optuna.Study:
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2),
        )
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise OptionError(f"storage={storage} can't be used ({reason}); for instance sqlite:///optuna.db") from None
    known = study.user_attrs.get(_ASKED_ATTRIBUTE)
    if known is None:
        study.set_user_attr(_ASKED_ATTRIBUTE, asked)
    elif changed := [key for key in asked if key != "data" and asked[key] != known.get(key)]:
        before, now = known.get(changed[0]), asked[changed[0]]
        raise OptionError(
            f"study={name} was made with another {changed[0]} ({before}, now {now}), so its trials can't be compared; "
            "give another name with --study"
        )
    return study


def _record(run: Run, study: optuna.Study, base: dict[str, Any]) -> None:
    _BEST_CONFIG.write_text(yaml.safe_dump(base | study.best_params, sort_keys=False))
    run.log_file(_BEST_CONFIG)
    run.log_metrics({"best/val_loss": study.best_value})
    run.log_params({f"best/{name}": value for name, value in study.best_params.items()})
    run.set_tags({"histo.best_run": study.best_trial.user_attrs[RUN_ID_ATTRIBUTE]})


def _describe(study: optuna.Study) -> str:
    rows = []
    for trial in study.get_trials():
        values = [f"{trial.params[name]:.4g}" if name in trial.params else "" for name in _SEARCHED]
        loss = "" if trial.value is None else f"{trial.value:.4f}"
        mark = " *" if trial.number == study.best_trial.number else ""
        rows.append([f"{trial.number}{mark}", *values, loss, trial.state.name.lower()])
    header = ["trial", *(name.replace("_", " ") for name in _SEARCHED), "validation loss", "state"]
    return f"{format_table(header, rows)}\n* lowest validation loss"


def make_command() -> click.Command:
    """Return the command line of the search."""

    def callback(trials: int, storage: str, study: str, **values: Any) -> None:
        search(n_trials=trials, storage=storage, study_name=study, base=values)

    options = option_fields(TrainConfig)
    params: list[click.Parameter] = [
        click.Option(["--trials"], type=int, default=8, show_default=True, help="Total number of trials of the study."),
        click.Option(["--epochs"], type=int, default=8, show_default=True, help=options["epochs"].metadata["help"]),
        click.Option(["--storage"], default="sqlite:///optuna.db", show_default=True, help="Optuna storage URL."),
        click.Option(["--study"], default="histo-b3", show_default=True, help="Name of the study; an existing one goes on."),
        click.Option(["--debug"], is_flag=True, expose_value=False, help="Show a traceback on errors."),
    ]
    params += [make_option(options[name]) for name in _COMMON]
    return click.Command("search.py", params=params, callback=callback, help=__doc__)


if __name__ == "__main__":
    run_command(make_command(), prog_name="python tuning/search.py")
