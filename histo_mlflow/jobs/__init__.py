"""What can be run: one file per job, with its options, its result and one function; the command line and Python find them here.

A job's file imports at its top what options need, which is little, and what the work needs where the work begins: so that
``histo --help`` and every wrong option answer at once.
"""

import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import Field, dataclass
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any, Literal, TypeVar

from histo_mlflow.console import show_log
from histo_mlflow.errors import OptionError
from histo_mlflow.options import JobOptions, as_type, build, option_fields, sections

JobT = TypeVar("JobT", bound=Callable[[Any], Any])

STAGES = ("Learn", "Judge", "Use", "Decide what is in Production", "Keep")
"""The order of work; a job names the one that it belongs to, and jobs of one stage are listed as their `place` says."""

_JOBS: dict[str, "Job"] = {}

# The search lies beside the package, and within it where a wheel has brought it (tuning/tune.py says why).
_SEARCH_WITHIN, _SEARCH_BESIDE = "histo_mlflow.tuning", "tuning"


@dataclass(frozen=True)
class Job:
    """A thing that can be run.

    Attributes:
        name: On the command line and in MLproject; in Python too, but where a package of ours is called so.
        options: Their class; its docstring is the help.
        run: Does it.
        stage: One of `STAGES`.
        place: Among the jobs of its stage.
        example: A command line.
        keeps: Whether it can't do without the tracking store, whatever its options are.
    """

    name: str
    options: type[JobOptions]
    run: Callable[[Any], Any]
    stage: str
    place: int
    example: str
    keeps: bool = True

    @property
    def function_name(self) -> str:
        """What it is called in Python."""
        return self.run.__name__

    @property
    def help(self) -> str:
        """What it does, in a few sentences; the first is a summary."""
        return inspect.cleandoc(self.options.__doc__ or "")

    def do(self, options: JobOptions) -> Any:
        """Run it, once the tracking store that it needs has answered and the runs that are named in short have been found."""
        from histo_mlflow.tracking.answer import require_answer
        from histo_mlflow.tracking.short_names import asks_the_store, has_short_names

        if self.keeps or asks_the_store(options):
            require_answer()
        if has_short_names(options):
            from histo_mlflow.tracking.named_runs import with_whole_names  # this takes MLflow, which the others do without

            options = with_whole_names(options, self.name)
        return self.run(options)


def job(stage: str, place: int, *, example: str, name: str = "", keeps: bool = True) -> Callable[[JobT], JobT]:
    """Make a function of one argument, annotated with its options, a job of the function's name, or of another; see `Job`."""

    def register(function: JobT) -> JobT:
        assert stage in STAGES
        (options, *_) = function.__annotations__.values()
        called = name or function.__name__
        _JOBS[called] = Job(called, options, function, stage, place, example, keeps)
        return function

    return register


@functools.cache
def find_jobs() -> Mapping[str, Job]:
    """Return all jobs by name, in the order of work."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    with suppress(ModuleNotFoundError):  # somebody else's package may be called so
        import_module(f"{_SEARCH_WITHIN if find_spec(_SEARCH_WITHIN) else _SEARCH_BESIDE}.tune")
    return {each.name: each for each in sorted(_JOBS.values(), key=lambda each: (STAGES.index(each.stage), each.place))}


@functools.cache
def as_function(name: str) -> Callable[..., Any]:
    """Return a job as a function whose keywords are its options; raises `KeyError` if there is no such job.

    Its signature and docstring are those of the options, with defaults, limits and help, as notebooks and `help` show them.
    """
    asked = find_jobs()[name]
    known = option_fields(asked.options)
    by_place = [name for name, part in known.items() if part.metadata["option"].positional]

    @wraps(asked.run)
    def call(*values: object, **named: object) -> Any:
        if strangers := sorted(named.keys() - known.keys()):
            raise OptionError(f"{name} has no option {' '.join(strangers)}; known are {' '.join(known)}")
        given = dict(zip(by_place, values, strict=False)) | named
        show_log()
        typed = {option: as_type(known[option], value) for option, value in given.items()}
        return asked.do(build(asked.options, typed, given=frozenset(typed)))

    kinds = {True: inspect.Parameter.POSITIONAL_OR_KEYWORD, False: inspect.Parameter.KEYWORD_ONLY}
    parameters = sorted(
        (
            inspect.Parameter(option, kinds[option in by_place], default=part.default, annotation=_accepted(part))
            for option, part in known.items()
        ),
        key=lambda parameter: parameter.kind,
    )
    found = asked.run.__annotations__["return"]
    call.__signature__ = inspect.Signature(parameters, return_annotation=found)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": found}
    call.__doc__ = _describe(asked, found)
    return call


def _accepted(part: Field[Any]) -> Any:
    """Return the type of what an option takes in Python."""
    known, kind = part.metadata["option"], type(part.default)
    if known.choices:
        return Literal[known.choices]
    return kind | Literal[known.words] if known.words else kind


def _describe(asked: Job, found: object) -> str:
    """Return the docstring of a job as a function."""
    lines = [asked.help, "", "Args:"]
    for section in sorted(sections(asked.options), key=lambda section: section.comes_last):
        for option, part in section.options.items():
            known = part.metadata["option"]
            facts = "; ".join(filter(None, [known.describe_limits(), "" if known.missing else f"default {part.default!r}"]))
            text = f"{option}: {known.help} ({facts})" if facts else f"{option}: {known.help}"
            lines.append(textwrap.fill(text, 100, initial_indent="    ", subsequent_indent="        ", break_on_hyphens=False))
    if isinstance(found, type) and found.__module__.startswith(("histo_mlflow.", "tuning")):
        lines += ["", "Returns:", textwrap.indent(f"{found.__name__}: {inspect.cleandoc(found.__doc__ or '')}", "    ")]
    return "\n".join([*lines, "", f"On the command line: {asked.example}"])
