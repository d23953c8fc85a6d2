"""A tiny model that is registered as training would, for tests of what happens afterwards."""

import torch

from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.tracking.decisions import register_model
from histo_mlflow.tracking.logged_models import log_model
from histo_mlflow.tracking.registry import VersionFacts
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import open_store

CLASSES = ("red", "green", "blue")


class Reader(torch.nn.Module):
    """Calls a tile by its brightest channel; `bias` makes it call more or fewer of the doubtful ones red."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.tensor([bias, 0.0, 0.0]))

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        torch._assert_tensor_metadata(tiles, dtype=torch.uint8)
        return (tiles * torch.ones(1)).mean(dim=(1, 2)) / 10 + self.bias


def register(
    bias: float, objection: str = "", *, microns_per_pixel: float | None = None, abstain_below: float | None = None
) -> str:
    """Register such a model, as training does, and return its version."""
    store = open_store()
    facts = ModelFacts(
        CLASSES, 32, "0" * 64, is_synthetic=False, selected="by hand", microns_per_pixel=microns_per_pixel,
        abstain_below=abstain_below,
    )  # fmt: skip
    with open_run(store, "train") as run:
        uri = log_model(run, Reader(bias), facts, "a card", step=1)
    done = register_model(store, uri, "histo-b3", VersionFacts(run.id, tags={"source_run": run.id}), objection=objection)
    return str(done.version)
