"""Statistics of batch norm, estimated anew from training tiles before a validation; knows nothing of the loop.

While it learns, batch norm normalises by the batch that it sees; afterwards by running averages of what it has seen, which are
of weights that were since changed. Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm" (arXiv 2105.07576), section 3: let
the weights as they are see some batches, and average those.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from histo_mlflow.learning.batches import TileSource
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.options import Recipe
from histo_mlflow.learning.ranks import Ranks
from histo_mlflow.tiles.tile_set import Part

# A forward pass costs about a third of a step: 15 % of the tiles are 5 % of an epoch, and more of the smallest sets. 64 tiles
# were too few, 256 no better than 128 (docs/augmentation.md).
_SHARE_OF_TILES = 0.15
_LEAST_TILES = 128
_MOST_TILES = 2048
# From 32 tiles a batch on no difference was measured. Without gradients four steps' tiles take less memory than one step.
_MOST_IN_BATCH, _STEPS_IN_BATCH = 128, 4


def learning_norms(network: nn.Module) -> list[str]:
    """Return the names of the batch norms whose running statistics were just learnt: frozen ones are in evaluation mode."""
    norms = ((name, module) for name, module in network.named_modules() if isinstance(module, _BatchNorm))
    return [name for name, norm in norms if norm.training and norm.track_running_stats]


def draw_batches(train: Part, recipe: Recipe, *, epoch: int) -> list[NDArray[np.int64]]:
    """Return rows of `train` in batches, enough for an estimate after `epoch`.

    They are taken as they are stored: turned tiles gave the same statistics, restained ones worse. A generator of their own
    draws them, so that order, augmentation and dropout of the training stay what they are.
    """
    chosen = np.random.default_rng([recipe.seed.seed, epoch]).choice(train.rows, sample_size(len(train)), replace=False)
    return np.array_split(chosen, math.ceil(len(chosen) / min(_MOST_IN_BATCH, _STEPS_IN_BATCH * recipe.fit.batch_size)))


def sample_size(n_tiles: int) -> int:
    """Return how many of `n_tiles` an estimate is made from."""
    return min(n_tiles, max(_LEAST_TILES, min(_MOST_TILES, round(_SHARE_OF_TILES * n_tiles))))


@torch.no_grad()
def estimate_norms(
    network: nn.Module,
    names: Sequence[str],
    source: TileSource,
    batches: Sequence[NDArray[np.int64]],
    compute: Compute,
    ranks: Ranks,
) -> None:
    """Give the batch norms of `network` that are named the mean and the variance of all that they see of `batches`.

    Each normalises by the batch at hand, as it does while it learns. What it has seen is pooled: of all batches, which are
    dealt whole, so that the result is the same for any number of `ranks`. Nothing else changes, for `network` stays in
    evaluation mode: no dropout acts, and no generator is drawn from.
    """
    seen = [_Seen(network.get_submodule(name)) for name in names]
    if not seen:
        return
    try:
        for tiles in source.load(batches[ranks.share(len(batches))]):
            with compute.autocast():
                network.forward(tiles)  # not by a call: a compiled network knows nothing of new hooks
    finally:
        for each in seen:
            each.hook.remove()
    pooled = ranks.add_up(torch.cat([each.sums for each in seen], dim=1))
    for each, sums in zip(seen, torch.split(pooled, [len(each.mean) for each in seen], dim=1), strict=True):
        each.keep(sums)


class _Seen:
    """What a batch norm sees: number, sum and sum of squares ``(3, n_channels)``, in double precision."""

    def __init__(self, norm: nn.Module) -> None:
        self.mean, self._variance = cast("Tensor", norm.running_mean), cast("Tensor", norm.running_var)
        self.sums = torch.zeros((3, len(self.mean)), dtype=torch.float64, device=self.mean.device)
        self.hook = norm.register_forward_pre_hook(self._add)

    def _add(self, _norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Add a batch, and let the norm normalise by it."""
        features: Tensor = inputs[0]
        # Fast for every layout and precision. That it also normalises, for nothing, is a small part of a forward pass.
        functional.batch_norm(features, self.mean, self._variance, training=True, momentum=1.0)
        n = features.numel() // len(self.mean)
        total = self.mean.double() * n
        self.sums += torch.stack([torch.full_like(total, n), total, self._variance.double() * (n - 1) + total**2 / n])
        self._variance *= (n - 1) / n  # by which torch normalises while it learns; what it keeps is the unbiased one

    def keep(self, sums: Tensor) -> None:
        """Give the norm mean and unbiased variance of all that `sums` are of; one that saw nothing keeps what it had."""
        n, total, squares = sums
        if n[0] > 0:
            self.mean.copy_(total / n)
            self._variance.copy_((squares - total**2 / n) / (n - 1))
