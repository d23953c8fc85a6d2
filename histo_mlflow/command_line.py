"""What every command line of ours has in common: options read from dataclasses, one-line errors, exit codes."""

import difflib
import io
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import Field
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from histo_mlflow.base.escaping import visible, visible_lines
from histo_mlflow.base.interruption import interruptible, stop_with_parent
from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.console import say, warn
from histo_mlflow.errors import Interrupted, RequestError, WorkError

_WORK_FAILED, _REQUEST_WRONG = 1, 2


COMMAND_SETTINGS: dict[str, Any] = {"token_normalize_func": lambda token: token.replace("_", "-")}
"""Of every command: names of options with underscores too, as `mlflow run` hands them on."""

_KINDS: dict[type, click.ParamType[Any]] = {bool: click.BOOL, int: click.INT, float: click.FLOAT, str: click.STRING}
_BY_NAME = "_by_name"
_SHORT_NAMES = {
    "lr": "learning-rate", "bs": "batch-size", "batch": "batch-size", "wd": "weight-decay", "epoch": "epochs",
    "ema": "ema-decay", "size": "image-size", "mpp": "microns-per-pixel", "dataset": "data", "input": "data",
    "test": "test-data", "out": "output", "name": "model-name", "checkpoint": "weights", "workers": "processes",
    "gpus": "processes", "cutoff": "aug-cutoff",
}  # fmt: skip


def make_options(options: Iterable[Field[Any]]) -> list[click.Parameter]:
    """Return the command-line options of dataclass fields; one that goes by its place may be given by its name too."""
    return [made for option in options for made in _make(option)]


def _make(option: Field[Any]) -> list[click.Parameter]:
    names = [f"--{option.name.replace('_', '-')}"]
    if option.metadata.get("is_positional"):
        argument = click.Argument([option.name], default=option.default, required=False)
        return [argument, click.Option([*names, f"{option.name}{_BY_NAME}"], hidden=True)]
    choices = option.metadata.get("choices")
    # A boolean alone is true: --force as well as --force true.
    alone: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if isinstance(option.default, bool) else {}
    return [
        click.Option(
            [*names, option.name],
            type=click.Choice(choices) if choices else _KINDS[type(option.default)],
            default=option.default,
            show_default=option.default != "",
            help=option.metadata["help"],
            **alone,
        )
    ]


def typed_values(context: click.Context) -> dict[str, Any]:
    """Return the values of the options that were typed, whatever they are, by public name."""
    return {
        name.removesuffix(_BY_NAME): value
        for name, value in context.params.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def run_command(command: click.Command, *, prog_name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and exit: 0 done, 1 the work failed, 2 the request was wrong; errors are one line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(command, prog_name, given, is_debug="--debug" in given))


def _run(command: click.Command, prog_name: str, arguments: list[str], *, is_debug: bool) -> int:
    logging.getLogger("histo_mlflow").handlers = [_ToTerminal()]
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal's encoding lacks is spelt, as on standard error
        sys.stdout.reconfigure(errors="backslashreplace")
    if "MLFLOW_RUN_ID" in os.environ:
        stop_with_parent(os.getppid())
    try:
        with interruptible():
            command.main(arguments, prog_name=prog_name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        return _REQUEST_WRONG
    except (click.ClickException, RequestError) as error:
        message = _message_of(error)
        return _report(f"{message}{_help_hint(error)}", _REQUEST_WRONG, is_debug)
    except (Interrupted, KeyboardInterrupt, click.Abort) as error:
        if isinstance(error.__context__, WorkError):  # it came while the runs were being ended for that
            return _report(str(error.__context__), _WORK_FAILED, is_debug)
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


def _message_of(error: click.ClickException | RequestError) -> str:
    if isinstance(error, click.NoSuchOption):
        return f"No such option: {error.option_name}"  # click adds what looks alike, --help for --lr
    return error.format_message() if isinstance(error, click.ClickException) else str(error)


def _meant_by(error: click.NoSuchOption) -> str | None:
    if error.ctx is None:
        return None
    known = [opt.lstrip("-") for param in error.ctx.command.params for opt in param.opts if opt.startswith("--")]
    asked = error.option_name.lstrip("-")
    likely = [_SHORT_NAMES[asked]] if asked in _SHORT_NAMES else difflib.get_close_matches(asked, known, n=1)
    return f"--{likely[0]}" if likely and likely[0] in known else None


class _ToTerminal(logging.Handler):
    """Says what modules below the command line log: they know of no terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        (warn if record.levelno >= logging.WARNING else say)(record.getMessage())


def _help_hint(error: Exception) -> str:
    if isinstance(error, click.NoSuchOption) and (meant := _meant_by(error)):
        return f" (did you mean {meant}?)"
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f" (see {error.ctx.command_path} --help)"
    return ""


def _report(message: str, exit_code: int, is_debug: bool) -> int:
    if is_debug:
        click.echo(visible_lines(hide_secrets(traceback.format_exc())), err=True)
    click.echo(f"Error: {visible(hide_secrets(' '.join(message.split())))}", err=True)
    sys.stdout.flush()
    return exit_code
