"""Backbones that a logged model may not hold: they stay in a folder of the user's, and the model refers to them."""

import hashlib
import json
import os
from typing import Any

import mlflow.pytorch
import torch
from mlflow.exceptions import MlflowException
from torch import nn

from histo_mlflow.base.digests import sha256_of
from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.errors import RequestError, WorkError
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.served_model.kept_backbone import FOLDER_VARIABLE, backbones_folder, find_kept


def keep_backbone(encoder: nn.Module, facts: ModelFacts) -> dict[str, str]:
    """Export the backbone of a model into the user's folder unless it lies there, and return what the model says of it.

    Args:
        encoder: From uint8 tiles to features, in evaluation mode.
        facts: Of the model.

    Raises:
        WorkError: The folder can't be written.
    """
    file = backbones_folder() / f"{_digest_of(encoder, facts)}.pt2"
    if not file.is_file():
        size_px = facts.tile_size_px
        example = torch.zeros((2, size_px + 2, size_px + 5, 3), dtype=torch.uint8)
        sizes = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO}
        program = torch.export.export(encoder, (example,), dynamic_shapes={"tiles": sizes})
        draft = file.with_name(f".{os.getpid()}-{file.name}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.export.save(program, draft)
            draft.replace(file)
        except (OSError, RuntimeError) as error:
            raise WorkError(
                f"can't keep the backbone at {file} ({reason_of(error)}); make room there, or set {FOLDER_VARIABLE}"
            ) from error
        finally:
            draft.unlink(missing_ok=True)
    return {"file": file.name, "sha256": sha256_of(file), "name": facts.backbone, "licence": facts.licence}


def load_kept(reference: Any) -> nn.Module:
    """Return the backbone that a model refers to, from uint8 tiles to features; raises `RequestError` if it can't be had."""
    try:
        file = find_kept(reference)
        mlflow.pytorch._validate_pt2_archive_is_pickle_free(str(file))
        return torch.export.load(file).module()
    except (MlflowException, LookupError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise RequestError(str(error)) from None


def _digest_of(encoder: nn.Module, facts: ModelFacts) -> str:
    """Return what the same backbone with the same weights for the same tiles has in common, whoever trained it."""
    digest = hashlib.sha256(json.dumps([facts.backbone, facts.tile_size_px, facts.preprocessing]).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
