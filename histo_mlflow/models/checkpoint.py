"""Weights and training state as files, written whole or not at all and read without unpickling objects."""

import json
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from histo_mlflow.base.plain_values import parse_json, reason_of
from histo_mlflow.base.whole_file import written_whole
from histo_mlflow.errors import RequestError, TileFormatError
from histo_mlflow.models.backbones import find_backbone
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts, facts_from

FACTS_KEY = "histo_mlflow"
OUR_PREFIX = "backbone."
# What torch, safetensors and a parser of JSON raise for bytes that are not as they should be; RecursionError is a RuntimeError.
DAMAGE = (
    SafetensorError, UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    MemoryError, zipfile.BadZipFile,
)  # fmt: skip
_REFUSALS = (SafetensorError, RuntimeError, OSError)  # safetensors and torch have their own for a full disk


def epoch_file_name(epoch: int) -> str:
    """Return the name of the checkpoint of an epoch, which sorts in order."""
    return f"epoch_{epoch:03d}.safetensors"


def save_weights(path: Path, network: torch.nn.Module, facts: ModelFacts) -> None:
    """Write the weights and `facts` as safetensors."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    header = {FACTS_KEY: json.dumps(asdict(facts))}
    with written_whole(path, refusals=_REFUSALS) as draft:
        save_file(tensors, draft, metadata=header)


def load_weights(path: Path) -> tuple[TileClassifier, ModelFacts]:
    """Return the network in evaluation mode, on the CPU, and its facts; raises `RequestError` for another file."""
    try:
        tensors, facts = read_weights(path)
        if facts is None:
            raise RequestError(f"{path} holds weights without class names; use it as weights= and train, then evaluate")
        network = TileClassifier(n_classes=len(facts.classes), tile_size_px=facts.tile_size_px, backbone=facts.backbone)
        network.load_state_dict(tensors)
    except RequestError:
        raise
    except DAMAGE as error:
        raise TileFormatError(f"{path} is not a checkpoint ({reason_of(error)}); give a .safetensors file of a run") from None
    return network.eval(), facts


def read_weights(path: Path) -> tuple[dict[str, Tensor], ModelFacts | None]:
    """Return the tensors of a safetensors file, on the CPU, and the facts in its header if there are any.

    Raises one of `DAMAGE` for another file, and where the facts are of another number of classes than the head: a network of
    their size may not fit in memory.
    """
    with safe_open(path, framework="pt") as file:
        header = (file.metadata() or {}).get(FACTS_KEY)
        facts = None if header is None else facts_from(parse_json(header))
        if facts is not None:
            n_rows = file.get_slice(f"{OUR_PREFIX}{find_backbone(facts.backbone).head}.weight").get_shape()[0]
            if len(facts.classes) != n_rows:
                raise ValueError(f"it names {len(facts.classes)} classes and has weights for {n_rows}")
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 - safe_open is not a dict


def load_plainly(path: Path) -> Any:
    """Return what `torch.save` wrote, on the CPU, without unpickling objects; raises one of `DAMAGE` for whatever else it is.

    An archive that inflates is refused: torch writes none, and a small one could fill the memory.
    """
    if not path.is_file():  # reading a pipe would wait for ever
        raise ValueError("there is no such file")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("it is compressed, as torch writes none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's words on odd pickles; what it can't read it refuses
        return torch.load(path, map_location="cpu", weights_only=True)


def save_state(path: Path, content: Mapping[str, Any]) -> None:
    """Write a training state, which `load_state` reads without unpickling objects."""
    with written_whole(path, refusals=_REFUSALS) as draft:
        torch.save(dict(content), draft)


def load_state(path: Path) -> dict[str, Any]:
    """Return what `save_state` wrote, on the CPU; raises `TileFormatError` for another or a damaged file."""
    try:
        content = load_plainly(path)
    except DAMAGE as error:
        raise TileFormatError(
            f"{path} is not a whole training state ({reason_of(error)}); start a new run from the last weights: "
            "weights=runs:/RUN_ID/checkpoints/epoch_NNN.safetensors"
        ) from None
    if not isinstance(content, dict) or "random_states" not in content:
        raise TileFormatError(f"{path} is not a training state; give the run id of a training: resume=RUN_ID")
    return content
