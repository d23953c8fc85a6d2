"""The command line: one command per entry point, its options read from the dataclasses that hold them."""

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import Field
from pathlib import Path
from typing import Any, NoReturn

import click

import histo_mlflow
from histo_mlflow.config import CvConfig, EvaluateConfig, PredictConfig, TrainConfig, build, option_fields, read_yaml
from histo_mlflow.errors import Interrupted, RequestError, WorkError

_WORK_FAILED, _REQUEST_WRONG = 1, 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(histo_mlflow.__version__, prog_name="histo")
def cli() -> None:
    """Train, cross-validate, evaluate and reuse classifiers of histology tiles; MLflow keeps every run.

    Each command is also an entry point: `histo cv --epochs 5` is `mlflow run . -e cv -P epochs=5`.
    """


def _add_command(name: str, config_class: type, run: Callable[[Any], object], text: str) -> None:
    def callback(**values: Any) -> None:
        run(build(config_class, _resolve(config_class, values)))

    params: list[click.Parameter] = [_make_option(option) for option in option_fields(config_class).values()]
    params.append(click.Option(["--config"], default="none", show_default=True, help=_CONFIG_HELP))
    params.append(click.Option(["--debug"], is_flag=True, expose_value=False, help="Show a traceback on errors."))
    cli.add_command(click.Command(name, params=params, callback=callback, help=text, short_help=text.partition(".")[0]))


_CONFIG_HELP = (
    "A yaml with option names and values, such as a run's config.yaml; an option given otherwise than by its default wins."
)


def _make_option(option: Field[Any]) -> click.Option:
    choices = option.metadata.get("choices")
    return click.Option(
        [f"--{option.name.replace('_', '-')}", option.name],
        type=click.Choice(choices) if choices else _KINDS[type(option.default)],
        default=option.default,
        show_default=True,
        help=option.metadata["help"],
    )


_KINDS: dict[type, click.ParamType[Any]] = {bool: click.BOOL, int: click.INT, float: click.FLOAT, str: click.STRING}


def _resolve(config_class: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return the option values after the yaml's have taken the places of defaults.

    `mlflow run` hands on every option, given or not, so "given" can only mean "other than its default".
    """
    chosen = values.pop("config")
    if chosen in {"", "none"}:
        return values
    from_yaml = read_yaml(Path(chosen), config_class)
    defaults = {name: option.default for name, option in option_fields(config_class).items()}
    return {name: from_yaml.get(name, value) if value == defaults[name] else value for name, value in values.items()}


def _run_train(config: TrainConfig) -> None:
    from histo_mlflow.entry_points.train import train

    train(config)


def _run_cv(config: CvConfig) -> None:
    from histo_mlflow.entry_points.cv import cv

    cv(config)


def _run_evaluate(config: EvaluateConfig) -> None:
    from histo_mlflow.entry_points.evaluate import evaluate

    evaluate(config)


def _run_predict(config: PredictConfig) -> None:
    from histo_mlflow.entry_points.predict import predict

    predict(config)


_add_command(
    "train",
    TrainConfig,
    _run_train,
    "Train on one part of the tiles and validate on the other. The epoch of the lowest validation loss is registered.",
)
_add_command(
    "cv",
    CvConfig,
    _run_cv,
    "Cross-validate: one run per fold under a parent run. The model of the best fold is registered.",
)
_add_command(
    "evaluate",
    EvaluateConfig,
    _run_evaluate,
    "Score a model on labelled tiles. Tables, figures and a report are kept in a run.",
)
_add_command(
    "predict",
    PredictConfig,
    _run_predict,
    "Write a label and probabilities for every image to a CSV file. The images need no labels.",
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 the work failed, 2 the request was wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(given, is_debug="--debug" in given))


def _run(arguments: list[str], *, is_debug: bool) -> int:
    from histo_mlflow.tracking.interruption import interruptible

    try:
        with interruptible():
            cli.main(arguments, prog_name="histo", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        return _REQUEST_WRONG
    except (click.ClickException, RequestError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        return _report(f"{message}{_help_hint(error)}", _REQUEST_WRONG, is_debug)
    except (Interrupted, KeyboardInterrupt, click.Abort) as error:
        return _report(f"{error or 'interrupted'}; the open runs were ended as KILLED", _WORK_FAILED, is_debug)
    except WorkError as error:
        return _report(str(error), _WORK_FAILED, is_debug)
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        return _report(
            f"{error.strerror or error}{place}; check disk space and permissions; what was finished is kept",
            _WORK_FAILED,
            is_debug,
        )
    except Exception as error:  # the edge: whatever is left becomes one line and an exit code
        first_line = str(error).partition("\n")[0]
        return _report(f"{type(error).__name__}: {first_line}; --debug shows where", _WORK_FAILED, is_debug)
    return 0


def _help_hint(error: Exception) -> str:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f" (see {error.ctx.command_path} --help)"
    return ""


def _report(message: str, exit_code: int, is_debug: bool) -> int:
    if is_debug:
        traceback.print_exc()
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.stdout.flush()
    return exit_code
