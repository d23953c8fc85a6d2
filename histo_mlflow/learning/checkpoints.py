"""Weights and training state as files, written whole or not at all and read without unpickling objects."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from histo_mlflow.errors import RequestError, TileFormatError, WorkError
from histo_mlflow.learning.network import ARCHITECTURE, TileClassifier

FACTS_KEY = "histo_mlflow"
_HEAD = "backbone.classifier.1.weight"
_MAX_TILE_SIZE_PX = 8192
# What torch, safetensors and a parser of JSON raise for bytes that are not as they should be; RecursionError is a RuntimeError.
_DAMAGE = (
    SafetensorError, UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class CheckpointFacts:
    """What must be known to use the weights: it travels in the file's header."""

    classes: tuple[str, ...]
    tile_size_px: int
    epoch: int
    val_loss: float
    data_fingerprint: str
    is_synthetic: bool
    architecture: str = ARCHITECTURE


def epoch_file_name(epoch: int) -> str:
    """Return the name of the checkpoint of an epoch, which sorts in order."""
    return f"epoch_{epoch:03d}.safetensors"


def save_weights(path: Path, network: torch.nn.Module, facts: CheckpointFacts) -> None:
    """Write the weights and `facts` as safetensors."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    header = {FACTS_KEY: json.dumps(asdict(facts))}
    _write_whole(path, lambda draft: save_file(tensors, draft, metadata=header))


def load_weights(path: Path) -> tuple[TileClassifier, CheckpointFacts]:
    """Return the network in evaluation mode, on the CPU, and its facts; raises `RequestError` for another file."""
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(FACTS_KEY)
            if header is None:
                raise RequestError(f"{path} holds weights without class names; use it as weights= and train, then evaluate")
            stored = json.loads(header)
            facts = CheckpointFacts(**{**stored, "classes": tuple(stored["classes"])})
            _check_size(facts, n_rows=file.get_slice(_HEAD).get_shape()[0], path=path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
        network = TileClassifier(n_classes=len(facts.classes), tile_size_px=facts.tile_size_px)
        network.load_state_dict(tensors)
    except RequestError:
        raise
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0]
        raise TileFormatError(f"{path} is not a checkpoint ({reason}); give a .safetensors file of a run") from None
    return network.eval(), facts


def _check_size(facts: CheckpointFacts, *, n_rows: int, path: Path) -> None:
    """Raise `TileFormatError` where the header asks for a larger network than there are weights for, before it is made."""
    if len(facts.classes) != n_rows or not 0 < int(facts.tile_size_px) <= _MAX_TILE_SIZE_PX:
        raise TileFormatError(
            f"{path} names {len(facts.classes)} classes and tiles of {facts.tile_size_px} px, which its weights don't fit; "
            "give a .safetensors file of a run"
        )


def save_state(path: Path, content: Mapping[str, Any]) -> None:
    """Write a training state, which `load_state` reads without unpickling objects."""
    _write_whole(path, lambda draft: torch.save(dict(content), draft))


def load_state(path: Path) -> dict[str, Any]:
    """Return what `save_state` wrote, on the CPU; raises `TileFormatError` for another or a damaged file."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0]
        raise TileFormatError(
            f"{path} is no whole training state ({reason}); start a new run from the last weights: "
            "weights=runs:/RUN_ID/checkpoints/epoch_NNN.safetensors"
        ) from None
    if not isinstance(content, dict) or "random_states" not in content:
        raise TileFormatError(f"{path} is no training state; give the run id of a training: resume=RUN_ID")
    return content


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    try:
        write(draft)
        draft.replace(path)
    except (SafetensorError, RuntimeError, OSError) as error:  # torch and safetensors have their own for a full disk
        raise WorkError(f"can't write {path} ({error}); check disk space and permissions, then run again") from error
    finally:
        draft.unlink(missing_ok=True)
