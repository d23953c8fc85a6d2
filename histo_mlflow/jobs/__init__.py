"""What can be run: one file per job, with its options, its result and one function; the command line and Python find them here.

A job's file imports at its top what options need, which is little, and what the work needs where the work begins: so that
``histo --help`` and every wrong option answer at once.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar

from histo_mlflow.console import show_log
from histo_mlflow.errors import OptionError
from histo_mlflow.options import JobOptions, as_type, build, option_fields

JobT = TypeVar("JobT", bound=Callable[[Any], Any])

STAGES = ("Learn", "Judge", "Use", "Decide what is in Production", "Keep")
"""The order of work; a job names the one that it belongs to, and jobs of one stage are listed as their `place` says."""

_JOBS: dict[str, "Job"] = {}


@dataclass(frozen=True)
class Job:
    """A thing that can be run.

    Attributes:
        name: On the command line, in MLproject and in Python.
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


def job(stage: str, place: int, *, example: str, keeps: bool = True) -> Callable[[JobT], JobT]:
    """Make a function of one argument, annotated with its options, a job of the function's name; see `Job`."""

    def register(function: JobT) -> JobT:
        assert stage in STAGES
        (options, *_) = function.__annotations__.values()
        _JOBS[function.__name__] = Job(function.__name__, options, function, stage, place, example, keeps)
        return function

    return register


@functools.cache
def find_jobs() -> Mapping[str, Job]:
    """Return all jobs by name, in the order of work."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return {each.name: each for each in sorted(_JOBS.values(), key=lambda each: (STAGES.index(each.stage), each.place))}


@functools.cache
def as_function(name: str) -> Callable[..., Any]:
    """Return a job as a function whose keywords are its options; raises `KeyError` if there is no such job."""
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

    parameters = [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=part.default, annotation=part.type)
        for option, part in known.items()
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__doc__ = f"{asked.help}\n\nArgs:\n" + "\n".join(
        f"    {option}: {part.metadata['option'].help}" for option, part in known.items()
    )
    return call
