"""Options: each declared once, beside what it steers, with its default, help and limits; imports neither torch nor MLflow.

A group is a frozen dataclass of options, derived from `Options`. A job's options are a dataclass of groups and options, derived
from `JobOptions`. The names of the options are the public ones: on the command line (with hyphens or underscores), in a yaml,
in ``mlflow run -P`` and as keywords in Python.
"""

import math
import operator
import re
import reprlib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from histo_mlflow.base.plain_values import read_yaml_mapping, shorten
from histo_mlflow.errors import OptionError, SourceNotFoundError

OptionsT = TypeVar("OptionsT", bound="Options")

RUN, CV_RUN, OWN_RUN, MODEL = "run", "run of cv", "run of this job", "model"
"""What the value of an option may name; see `Option`."""

_INT_BOUND = 2**63
_LIMITS = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}


@dataclass(frozen=True, kw_only=True)
class Option:
    """What is known of an option besides its name and default.

    Attributes:
        help: One or two sentences.
        at_least: Smallest value that is allowed.
        above: All values that are allowed are larger.
        at_most: Largest value that is allowed.
        below: All values that are allowed are smaller.
        choices: The values that are allowed, if they can be counted.
        words: What may be given in the place of a number.
        changes_result: Whether a training with another value may come to other weights; such a value can't be changed when a
            run is resumed, and trials of a search share it.
        positional: Whether the command line takes it by its place.
        is_several: Whether it takes all that is left there; the value is a text with spaces between them.
        missing: What is said where it is not given, of an option that must be.
        names: `RUN`, `CV_RUN`, `OWN_RUN` or `MODEL` where the value may name one; the first characters of a run's id do too
            then, or ``last``.
    """

    help: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    changes_result: bool = True
    positional: bool = False
    is_several: bool = False
    missing: str = ""
    names: str = ""

    def find_fault(self, value: object) -> str | None:
        """Return what is wrong with a value of the right type, in words, or None."""
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(self.choices)}"
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return f"must be a number or one of {', '.join(self.words)}" if self.words and value not in self.words else None
        if math.isfinite(value) and all(_LIMITS[words](value, limit) for words, limit in self._limits().items()):
            return None
        return f"must be {self.describe_limits() or 'a finite number'}"

    def describe_limits(self) -> str:
        """Return the limits of a number in words, or ""."""
        return " and ".join(f"{words.replace('_', ' ')} {limit:g}" for words, limit in self._limits().items())

    def _limits(self) -> dict[str, float]:
        return {words: limit for words in _LIMITS if (limit := getattr(self, words)) is not None}


def option(default: str | float, help: str, **facts: Any) -> Any:  # noqa: A002 - the word that click uses too
    """Declare an option in a dataclass; `facts` are the other attributes of `Option`."""
    return field(default=default, metadata={"option": Option(help=help, **facts)})


def output_path(text: str) -> Path:
    """Return the absolute path of what is to be written; raises `SourceNotFoundError` if its folder does not exist."""
    output = Path(text).absolute()  # `mlflow run` of a git address works in a folder of its own
    if not output.parent.is_dir():
        raise SourceNotFoundError(f"output={output}: the folder {output.parent} does not exist; make it first")
    return output


def output_file(text: str) -> Path:
    """Return the absolute path of a file that is to be written; raises `OptionError` where a folder is."""
    output = output_path(text)
    if output.is_dir():
        raise OptionError(f"output={output}: is a folder; name a file in it")
    return output


def stated(value: str) -> str | None:
    """Return the value of an option that may be left out, or None for "" and "none"."""
    return None if value.strip() in {"", "none"} else value


@dataclass(frozen=True)
class Options:
    """A group of options; the first words of its docstring are the heading of its section in a job's help.

    Attributes:
        comes_last: Whether help shows it after the groups that say what is to be done.
    """

    comes_last: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raise `OptionError` for a value outside its limits, or for one that must be given and is not."""
        for part in fields(self):
            if known := part.metadata.get("option"):
                value = getattr(self, part.name)
                if known.missing and stated(value) is None:
                    raise OptionError(known.missing)
                if fault := known.find_fault(value):
                    example = "" if known.choices else f", for instance {part.default}"
                    raise OptionError(f"{part.name}={value}: {fault}{example}")


@dataclass(frozen=True)
class JobOptions(Options):
    """Everything that a job is asked; its docstring is the job's help.

    Attributes:
        given: Names of the options that were given, whatever their values.
    """

    given: frozenset[str] = field(default=frozenset(), kw_only=True)


def option_fields(options: type[Options]) -> dict[str, Field[Any]]:
    """Return the options of a group or a job by public name, in order; what is known of one is ``metadata["option"]``."""
    return {name: part for group in sections(options) for name, part in group.options.items()}


@dataclass(frozen=True)
class Section:
    """The options of one group, by public name, under the first words of the group's docstring."""

    title: str
    options: Mapping[str, Field[Any]]
    comes_last: bool


def sections(options: type[Options]) -> list[Section]:
    """Return the options of a job by group, in order; those that are in no group come first and have no title."""
    own = {part.name: part for part in fields(options) if "option" in part.metadata}
    title = "" if issubclass(options, JobOptions) else re.split("[.:;]", options.__doc__ or "")[0]
    inner = [section for part in fields(options) if (group := _group(part)) for section in sections(group)]
    return [*([Section(title, own, options.comes_last)] if own else []), *inner]


def build(options: type[OptionsT], values: Mapping[str, Any], *, given: frozenset[str] = frozenset()) -> OptionsT:
    """Return a job's or group's options from values by public name; what is missing has its default.

    Raises:
        OptionError: A value is outside its limits, or values do not go together.
    """
    parts: dict[str, Any] = {}
    for part in fields(options):
        if (group := _group(part)) is not None:
            parts[part.name] = build(group, values)
        elif part.name in values:
            parts[part.name] = values[part.name]
    return options(**parts, **({"given": given} if issubclass(options, JobOptions) else {}))


def flatten(options: Options) -> dict[str, Any]:
    """Return the values of all options by public name, in order."""
    own = {part.name: getattr(options, part.name) for part in fields(options) if "option" in part.metadata}
    for part in fields(options):
        if _group(part) is not None:
            own |= flatten(getattr(options, part.name))
    return own


def read_yaml(path: Path, options: type[Options], *, is_kept: bool = False) -> dict[str, Any]:
    """Return the option values of a yaml file; every key must be an option, but in a file that a run has kept.

    Raises:
        SourceNotFoundError: There is no such file.
        OptionError: It is not a yaml mapping, or a key is not an option or has a value of the wrong kind.
    """
    if not path.is_file():
        raise SourceNotFoundError(f"config={path}: no such file; give a yaml with option names and values")
    try:
        content = read_yaml_mapping(path)
    except ValueError as error:
        raise OptionError(f"config={path} is not yaml with option names and values ({error})") from None
    known = option_fields(options)
    strangers = [shorten(key) for key in content if key not in known]
    if strangers and not is_kept:
        raise OptionError(f"config={path}: unknown option {' '.join(strangers)[:200]}; known are {' '.join(known)}")
    try:
        return {name: as_type(known[name], value) for name, value in content.items() if name in known}
    except OptionError as error:
        raise OptionError(f"config={path}: {error}") from None


def as_type(part: Field[Any], value: object) -> object:
    """Return `value` in the type of an option, or raise `OptionError`; a float may be text, which yaml makes of ``1e-4``."""
    kind = type(part.default)
    if isinstance(value, str) and value in part.metadata["option"].words:
        return value
    if isinstance(value, int) and abs(value) >= _INT_BOUND:
        raise OptionError(f"{part.name} is out of range; numbers have less than 64 bits")
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    if kind is str and isinstance(value, Path):
        return str(value)
    if type(value) is not kind:
        words = "".join(f" or {word}" for word in part.metadata["option"].words)
        raise OptionError(f"{part.name}={reprlib.repr(value)} must be {kind.__name__}{words}")
    return value


def _group(part: Field[Any]) -> type[Options] | None:
    # No postponed annotations where options are declared: a type is a type there.
    return part.type if isinstance(part.type, type) and issubclass(part.type, Options) else None
