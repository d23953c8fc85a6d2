"""A network as a run would log it; not in `common`, because this imports MLflow, which others are measured without."""

from pathlib import Path

import torch
from mlflow.models import Model

from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES
from histo_mlflow.tracking.model_flavor import save_model


def save_logged(network: torch.nn.Module, folder: Path, *, size_px: int) -> Path:
    """Write `network` into `folder` and return the model's place there."""
    place = folder / "model"
    facts = ModelFacts(COLORECTAL_CLASSES, size_px, "0" * 64, is_synthetic=True, selected="by nothing")
    save_model(str(place), Model(), network=network, facts=facts, card="a benchmark")
    return place
