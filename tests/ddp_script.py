"""Run by torchrun, or alone, from test_many_processes: trains a network without chance inside and writes what it has learnt."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from histo_mlflow.learning.batches import TileSource
from histo_mlflow.learning.compute import Compute, seed_everything
from histo_mlflow.learning.fit import fit
from histo_mlflow.learning.norms import estimate_norms, learning_norms
from histo_mlflow.learning.options import Recipe
from histo_mlflow.learning.ranks import Ranks, joined_ranks
from histo_mlflow.learning.reports import EpochReport
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.options import build
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tiles.tile_set import TileSet


class _FrozenNorms(TileClassifier):
    """Batch norm with fixed statistics, no dropout, no stochastic depth: what several processes can share exactly."""

    def train(self, mode: bool = True) -> "_FrozenNorms":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) or type(module).__name__ in {"Dropout", "StochasticDepth"}:
                module.training = False
        return self


def _estimate_statistics(tiles: TileSet, ranks: Ranks) -> list[float]:
    """Return the statistics of all batch norms, estimated from three batches of unequal sizes."""
    network = TileClassifier(n_classes=9, tile_size_px=32).train()
    names = learning_norms(network)
    compute = Compute(torch.device("cpu"), is_bf16=False)
    source = TileSource(tiles.images, compute.device)
    batches = [np.arange(20), np.arange(20, 23), np.arange(23, 54)]
    estimate_norms(network.eval(), names, source, batches, compute, ranks)
    norms = [network.get_submodule(name) for name in names]
    return torch.cat([statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)]).tolist()


def main(output: str, trainable: str) -> None:
    torch.set_num_threads(1)
    tiles = draw_demo(n_tiles=54, tile_size_px=32)
    # 19 tiles in batches of 5: unequal shares of 2 and 3, and a last batch of 4.
    split = Split.of(tiles, np.arange(19), np.arange(20, 33))
    recipe = build(
        Recipe,
        {
            "trainable": trainable, "layer_decay": 1.0 if trainable == "all" else 0.75,
            "epochs": 3, "batch_size": 5, "class_weights": "balanced", "label_smoothing": 0.1,
            "ema_decay": 0.5, "augment": "symmetries", "aug_cutoff": 9, "stain": "all", "device": "cpu", "precision": "fp32",
        },
    )  # fmt: skip
    reports: list[EpochReport] = []
    seed_everything(0)
    network = _FrozenNorms(n_classes=9, tile_size_px=32)
    with joined_ranks(torch.device("cpu")) as ranks:
        fit(network, split, recipe, on_epoch=reports.append, ranks=ranks)
        seed_everything(0)
        statistics = _estimate_statistics(tiles, ranks)
        if ranks.is_first:
            figures = [
                {"train_loss": r.train_loss, "train_accuracy": r.train_accuracy, "val_loss": r.val.loss,
                 "val_labels": r.val.labels.tolist(), "n_val": len(r.val.logits)}
                for r in reports
            ]  # fmt: skip
            Path(output).write_text(json.dumps({"size": ranks.size, "epochs": figures, "statistics": statistics}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
