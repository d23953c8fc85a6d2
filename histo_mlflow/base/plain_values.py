"""Small texts that others may have written, as plain values of the kind that is expected; knows nothing of what they mean.

A yaml or JSON of some hundred bytes can take minutes and gigabytes, run code, or hang where a pipe lies in its place. What is
wrong is a `ValueError` of one line, for the reader who knows what the file is for.
"""

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")

_MAX_YAML_BYTES = 2**16
_MAX_DEPTH = 8
_SHOWN_CHARACTERS = 60
_REASON_CHARACTERS = 200


def read_small(file: Path, *, max_bytes: int) -> str:
    """Return a file's text; raises `ValueError` if it is not a file, too large or not UTF-8, and `OSError` as reading does."""
    if not file.is_file():  # reading a pipe would wait for ever
        raise ValueError("there is no such file")
    with file.open("rb") as opened:
        content = opened.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes} bytes")
    return content.decode()


def read_yaml_mapping(file: Path, *, max_bytes: int = _MAX_YAML_BYTES) -> dict[Any, Any]:
    """Return the mapping that a yaml holds, an empty one for an empty file.

    Aliases, tags, deep nesting and names that stand twice are refused: nobody needs them for plain values.

    Raises:
        ValueError: It is not such a file, or not a mapping.
    """
    text = read_small(file, max_bytes=max_bytes)
    try:
        _check_events(text)
        _check_names(yaml.compose(text, Loader=yaml.SafeLoader))
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except (TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:  # PyYAML's own, of odd values
        raise ValueError(f"it holds a value that can't be read ({error})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError("it is not a mapping of names to values")
    return content


def _check_events(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it holds an alias; write the value out")
        if getattr(event, "tag", None):
            raise ValueError("it holds a tag (!); write plain values")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")


def _check_names(node: yaml.Node | None) -> None:
    """Raise `ValueError` where a mapping has a name twice, of which yaml keeps the last without a word."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_names(item)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise ValueError(f"{shorten(name)} stands there twice")
            seen.add(name)
            _check_names(value)


def parse_json(text: str) -> Any:
    """Return what a JSON holds; raises `ValueError` for whatever else the text is."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def build_plain(kind: type[T], content: object) -> T:
    """Return a dataclass from its values as JSON has them, each of the type that its field says; others are passed over.

    Raises:
        ValueError: A value is missing or of another type.
    """
    if not isinstance(content, Mapping):
        raise ValueError("it is not a mapping of names to values")
    hints = typing.get_type_hints(kind)
    values = {}
    for each in fields(kind):  # type: ignore[arg-type]
        if each.name in content:
            values[each.name] = _as_kind(hints[each.name], content[each.name], each.name)
        elif each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{each.name} is missing")
    return kind(**values)


def _as_kind(kind: Any, value: object, name: str) -> Any:
    """Return `value` as JSON's form of `kind` has it: lists become tuples, whole numbers floats."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        kind = type(None) if value is None else next(part for part in parts if part is not type(None))
        return _as_kind(kind, value, name)
    if kind is Any:
        return value
    if origin in {tuple, list} and isinstance(value, list):
        return origin(_as_kind(parts[0], item, name) for item in value)
    if origin is dict and isinstance(value, dict):
        return {key: _as_kind(parts[1], item, name) for key, item in value.items()}
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if origin or type(value) is not kind:
        raise ValueError(f"{name}={shorten(value)} is not {getattr(origin or kind, '__name__', kind)}")
    return value


def shorten(value: object) -> str:
    """Return a value on one line and not long, whatever it is, with nothing in it that steers a terminal."""
    try:
        text = value if isinstance(value, str) and value.isprintable() else ascii(value)
    except (ValueError, RecursionError):  # Python writes no number of thousands of digits, and nothing very deep
        text = f"({type(value).__name__})"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def reason_of(error: Exception) -> str:
    """Return what an error of a library says, on one line and not long: some quote the file that they could not read."""
    text = " ".join(str(error).split())
    return text if len(text) <= _REASON_CHARACTERS else f"{text[: _REASON_CHARACTERS - 3]}..."
