"""Which options name a run or a model of the store, and which of them in short; a question to the text alone.

It must not import MLflow: it is asked before every command.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from histo_mlflow.options import Options, flatten, option_fields

LAST = "last"
_SHORT = re.compile(r"[0-9a-f]{4,31}|last")
_WHOLE = re.compile(r"[0-9a-f]{32}")
_OF_A_RUN = re.compile(r"runs:/(?P<run>[^/]+)(?P<rest>/.*)?")


def split_address(address: str) -> tuple[str, str, str]:
    """Return what stands before the name of a run in an address, the name, and what follows it."""
    found = _OF_A_RUN.fullmatch(address)
    return ("runs:/", found["run"], found["rest"] or "") if found else ("", address, "")


def is_short(address: str) -> bool:
    """Return whether an address names a run by the first characters of its id or by ``last``, and is no file."""
    _, run, _ = split_address(address)
    return _SHORT.fullmatch(run) is not None and not Path(address).exists()


def is_of_the_store(address: str) -> bool:
    """Return whether `address` is ``models:/...``, ``runs:/...``, or names a run, whole or in short."""
    return address.startswith(("models:/", "runs:/")) or _WHOLE.fullmatch(address) is not None or is_short(address)


def naming_values(options: Options) -> Mapping[str, tuple[str, list[str]]]:
    """Return by the name of each option that names a run or a model what it may name, and the values: one, or several."""
    known, values = option_fields(type(options)), flatten(options)
    facts = {name: part.metadata["option"] for name, part in known.items()}
    return {
        name: (fact.names, values[name].split() if fact.is_several else [values[name]])
        for name, fact in facts.items()
        if fact.names
    }


def asks_the_store(options: Options) -> bool:
    """Return whether an option names what only the store knows."""
    return any(is_of_the_store(value) for _, given in naming_values(options).values() for value in given)


def has_short_names(options: Options) -> bool:
    """Return whether an option names a run in short."""
    return any(is_short(value) for _, given in naming_values(options).values() for value in given)
