"""The command lines: a command for each job, made from its options; errors in one line, and exit codes."""

import difflib
import io
import os
import sys
import textwrap
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import Field
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

import histo_mlflow
from histo_mlflow.base.escaping import visible, visible_lines
from histo_mlflow.base.interruption import interruptible, stop_with_parent
from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.console import show_log
from histo_mlflow.errors import Interrupted, RequestError, WorkError
from histo_mlflow.jobs import Job, find_jobs
from histo_mlflow.options import build, option_fields, read_yaml, sections, stated

_WORK_FAILED, _REQUEST_WRONG = 1, 2
_COLUMNS = 80
_BY_NAME = "_by_name"
_SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": _COLUMNS,
    # Names of options with underscores too, as `mlflow run` hands them on.
    "token_normalize_func": lambda token: token.replace("_", "-"),
}
_SHORT_NAMES = {
    "lr": "learning-rate", "bs": "batch-size", "batch": "batch-size", "wd": "weight-decay", "epoch": "epochs",
    "ema": "ema-decay", "size": "image-size", "mpp": "microns-per-pixel", "dataset": "data", "input": "data",
    "test": "test-data", "out": "output", "name": "model-name", "checkpoint": "weights", "workers": "processes",
    "gpus": "processes", "cutoff": "aug-cutoff",
}  # fmt: skip


class _Page(click.HelpFormatter):
    """A page of help whose lines break between words only."""

    def write_dl(self, rows: Iterable[tuple[str, str]], *_: Any, **__: Any) -> None:
        """Write each term on a line of its own, what it means below it."""
        for term, meaning in rows:
            self.write(f"{'':{self.current_indent}}{term}\n")
            indent = " " * (self.current_indent + 4)
            self.write(
                textwrap.fill(
                    meaning, self.width, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
                    break_on_hyphens=False,
                )
                + "\n"
            )  # fmt: skip


class _Context(click.Context):
    formatter_class = _Page


class JobCommand(click.Command):
    """The command of a job."""

    context_class = _Context

    def __init__(self, job: Job) -> None:
        known = option_fields(job.options)
        params = [made for part in known.values() for made in _make(part)]
        params.append(click.Option(["--config"], default="none", show_default=True, help=_CONFIG_HELP))
        params.append(click.Option(["--debug"], is_flag=True, expose_value=False, help="Show a traceback on errors."))
        super().__init__(
            job.name,
            params=params,
            callback=self._do,
            help=job.help,
            short_help=job.help.partition(".")[0],
            context_settings=_SETTINGS,
            epilog=f"Example: {job.example}",
        )
        self.job = job

    def _do(self, **_values: Any) -> Any:
        """Do the job with what was given: what was typed before the yaml's, whatever they are."""
        context = click.get_current_context()
        typed = {
            name.removesuffix(_BY_NAME): value
            for name, value in context.params.items()
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        }
        path = stated(typed.pop("config", "none"))
        given = ({} if path is None else read_yaml(Path(path), self.job.options)) | typed
        return self.job.do(build(self.job.options, given, given=frozenset(given)))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by section, in the order of the job's groups."""
        params = {str(param.name): param for param in self.get_params(ctx)}
        for section in sorted(sections(self.job.options), key=lambda section: section.comes_last):
            with formatter.section(section.title or "Options"):
                formatter.write_dl([_describe(params.pop(name), part, ctx) for name, part in section.options.items()])
        with formatter.section("Everywhere"):
            formatter.write_dl([record for param in params.values() if (record := param.get_help_record(ctx))])


class _NumberOrWord(click.ParamType[Any]):
    """A whole number, or one of some words."""

    name = "integer"

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        return "|".join(("INTEGER", *self.words))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number or the word."""
        try:
            return value if value in self.words else int(value)
        except ValueError:
            return self.fail(f"{value!r} is neither a whole number nor {' nor '.join(self.words)}.", param, ctx)


class _Jobs(click.Group):
    """All jobs, listed in the order of work."""

    context_class = _Context

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write each job with its summary and an example, by stage."""
        for stage, jobs in groupby(find_jobs().values(), key=lambda job: job.stage):
            with formatter.section(stage):
                for job in jobs:
                    formatter.write_dl([(job.name, self.commands[job.name].get_short_help_str(200))])
                    formatter.write(f"{'':{formatter.current_indent + 4}}$ {job.example}\n")


_CONFIG_HELP = "A yaml with option names and values, such as a run's config.yaml; typed options override it."


def _make(part: Field[Any]) -> list[click.Parameter]:
    """Return the parameters of an option; one that goes by its place may be given by its name too."""
    names, known = [f"--{part.name.replace('_', '-')}"], part.metadata["option"]
    if known.positional:
        argument = click.Argument([part.name], default=part.default, required=False)
        if known.is_several:
            argument = click.Argument([part.name], nargs=-1, callback=lambda _context, _param, values: " ".join(values))
        return [argument, click.Option([*names, f"{part.name}{_BY_NAME}"], hidden=True)]
    # A boolean alone is true: --force as well as --force true.
    alone: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if isinstance(part.default, bool) else {}
    kind = click.Choice(known.choices) if known.choices else _NumberOrWord(known.words) if known.words else type(part.default)
    return [click.Option([*names, part.name], type=kind, default=part.default, help=known.help, **alone)]


def _describe(param: click.Parameter, part: Field[Any], context: click.Context) -> tuple[str, str]:
    known = part.metadata["option"]
    kind = "|".join(known.choices) if known.choices else param.type.get_metavar(param, context) or param.type.name.upper()
    term = f"{part.name.upper()}{'...' if known.is_several else ''}" if known.positional else f"{param.opts[0]} {kind}"
    default = str(part.default).lower() if isinstance(part.default, bool) else part.default
    return term, f"{known.help} [default: {default}]" if default != "" else known.help


@click.group(cls=_Jobs, context_settings=_SETTINGS)
@click.version_option(histo_mlflow.__version__, prog_name="histo")
def cli() -> None:
    """Train, cross-validate, evaluate and reuse classifiers of histology tiles.

    MLflow keeps every run. Each command is also an entry point, `histo cv --epochs 5` is `mlflow run . -e cv -P epochs=5`, and
    a function in Python: histo_mlflow.cv(epochs=5).
    """


for _job in find_jobs().values():
    cli.add_command(JobCommand(_job))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    run_command(cli, prog_name="histo", arguments=arguments)


def run_command(command: click.Command, *, prog_name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and exit: 0 done, 1 the work failed, 2 the request was wrong; errors are one line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(command, prog_name, given, is_debug="--debug" in given))


def _run(command: click.Command, prog_name: str, arguments: list[str], *, is_debug: bool) -> int:
    show_log()
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
        return _report(_explain(error), _REQUEST_WRONG, is_debug)
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


def _meant_by(error: click.NoSuchOption) -> str | None:
    if error.ctx is None:
        return None
    known = [opt.lstrip("-") for param in error.ctx.command.params for opt in param.opts if opt.startswith("--")]
    asked = error.option_name.lstrip("-")
    likely = [_SHORT_NAMES[asked]] if asked in _SHORT_NAMES else difflib.get_close_matches(asked, known, n=1)
    return f"--{likely[0]}" if likely and likely[0] in known else None


def _explain(error: click.ClickException | RequestError) -> str:
    """Return what was wrong, with a word on where to look."""
    if isinstance(error, RequestError):
        return str(error)
    message = error.format_message()
    if isinstance(error, click.NoSuchOption):
        message = f"No such option: {error.option_name}"  # click adds what looks alike, --help for --lr
        if meant := _meant_by(error):
            return f"{message} (did you mean {meant}?)"
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message} (see {error.ctx.command_path} --help)"
    return message


def _report(message: str, exit_code: int, is_debug: bool) -> int:
    if is_debug:
        click.echo(visible_lines(hide_secrets(traceback.format_exc())), err=True)
    click.echo(f"Error: {visible(hide_secrets(' '.join(message.split())))}", err=True)
    sys.stdout.flush()
    return exit_code
