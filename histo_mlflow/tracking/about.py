"""What explains a run and is never searched for, in one file of its own, so that its tags are few enough to be read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histo_mlflow.base.plain_values import parse_json, read_small
from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.tracking.runs import Run

ABOUT_FILE = "about.json"
_MAX_BYTES = 2**22
_PREFIX = "histo."


def note(run: Run, facts: Mapping[str, Any]) -> None:
    """Add facts, as JSON can hold them, to those in ``about.json`` of the run."""
    run.facts = read_notes(run) | {
        name: hide_secrets(value) if isinstance(value, str) else value for name, value in facts.items()
    }
    run.write(ABOUT_FILE, json.dumps(run.facts, indent=2, ensure_ascii=False) + "\n")


def read_notes(run: Run) -> dict[str, Any]:
    """Return the facts that a run has kept; of a run of an earlier version its tags, which held them."""
    if run.facts is not None:
        return run.facts
    if run.has_file(ABOUT_FILE):
        return run.read(ABOUT_FILE, _read)
    return {name.removeprefix(_PREFIX): value for name, value in run.tags().items() if name.startswith(_PREFIX)}


def _read(file: Path) -> dict[str, Any]:
    try:
        facts = parse_json(read_small(file, max_bytes=_MAX_BYTES))
    except ValueError:  # a damaged note is no reason to lose a training
        return {}
    return facts if isinstance(facts, dict) else {}
