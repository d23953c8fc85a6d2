"""Reads what W&B has recorded offline: its file is a LevelDB log of protocol buffers."""

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK, _HEADER = 32768, 7


@dataclass
class Recorded:
    """One run as W&B has it."""

    about: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def read_all(folder: Path) -> dict[str, Recorded]:
    """Return the runs recorded under `folder` by id."""
    runs = [_read(file) for file in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]
    return {run.about["id"]: run for run in runs}


def _read(file: Path) -> Recorded:
    from wandb.proto import wandb_internal_pb2

    run = Recorded()
    for content in _records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            about = record.run
            run.about = {
                "id": about.run_id, "name": about.display_name, "group": about.run_group, "job": about.job_type,
                "notes": about.notes, "project": about.project,
            }  # fmt: skip
            run.config |= {item.key: json.loads(item.value_json) for item in about.config.update}
        elif kind == "config":
            run.config |= {item.key: json.loads(item.value_json) for item in record.config.update}
        elif kind == "history":
            run.history.append(_read_items(record.history.item))
        elif kind == "summary":
            run.summary |= _read_items(record.summary.update)
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _read_items(items: Any) -> dict[str, Any]:
    """Return values by name; of what is nested, such as a figure, the parts in a dictionary."""
    read: dict[str, Any] = {}
    for item in items:
        name, *within = item.nested_key or [item.key]
        if within:
            read.setdefault(name, {})["/".join(within)] = json.loads(item.value_json)
        else:
            read[name] = json.loads(item.value_json)
    return read


def _records(content: bytes) -> list[bytes]:
    found, parts, at = [], b"", _HEADER  # the file begins with a mark of its kind
    while at + _HEADER <= len(content):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + _HEADER])
        parts += content[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind in {1, 4}:  # whole, or the last part
            found.append(parts)
            parts = b""
    return found
