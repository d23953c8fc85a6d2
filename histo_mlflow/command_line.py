"""What every command line of ours has in common: options read from dataclasses, one-line errors, exit codes."""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import Field
from typing import Any, NoReturn

import click

from histo_mlflow.console import warn
from histo_mlflow.errors import Interrupted, RequestError, WorkError
from histo_mlflow.interruption import interruptible, stop_with_parent

_WORK_FAILED, _REQUEST_WRONG = 1, 2


def make_option(option: Field[Any]) -> click.Parameter:
    """Return the command-line option of a dataclass field; tuning builds its own command from the same fields."""
    if option.metadata.get("is_positional"):
        return click.Argument([option.name], default=option.default, required=False)
    choices = option.metadata.get("choices")
    return click.Option(
        [f"--{option.name.replace('_', '-')}", option.name],
        type=click.Choice(choices) if choices else _KINDS[type(option.default)],
        default=option.default,
        show_default=True,
        help=option.metadata["help"],
    )


_KINDS: dict[type, click.ParamType[Any]] = {bool: click.BOOL, int: click.INT, float: click.FLOAT, str: click.STRING}


def run_command(command: click.Command, *, prog_name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and exit: 0 done, 1 the work failed, 2 the request was wrong; errors are one line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(command, prog_name, given, is_debug="--debug" in given))


def _run(command: click.Command, prog_name: str, arguments: list[str], *, is_debug: bool) -> int:
    logging.getLogger("histo_mlflow").handlers = [_ToTerminal()]
    if "MLFLOW_RUN_ID" in os.environ:
        stop_with_parent(os.getppid())
    try:
        with interruptible():
            command.main(arguments, prog_name=prog_name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        return _REQUEST_WRONG
    except (click.ClickException, RequestError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
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


class _ToTerminal(logging.Handler):
    """Says what modules below the command line log: they know of no terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


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
