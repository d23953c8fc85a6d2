"""Features of whole tile sets, computed once and kept in the cache, for heads that are fitted on them and for others."""

import shutil
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from histo_mlflow.base.whole_file import written_whole
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer_batches
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.feature_file import FeatureFacts, FeatureWriter, add_labels, map_features
from histo_mlflow.models.features import AS_STORED, FeatureNetwork, View, digest_backbone
from histo_mlflow.tiles.cache import About, cache_key, made_once
from histo_mlflow.tiles.mapped import check_unchanged
from histo_mlflow.tiles.tile_set import TileSet

Features = NDArray[np.float32]
"""``(n_tiles, n_features)``, mostly mapped."""

_NAME = "features.h5"
_BLOCK_ROWS = 1024  # that a killed process computes again at most


def stored_features(network: TileClassifier, tiles: TileSet, compute: Compute, view: View = AS_STORED) -> Features:
    """Return what the frozen backbone of `network` makes of all `tiles`, mapped from the cache; computed if it is not there.

    Tiles that come as features are these features. `network` must be on the device of `compute` and in evaluation mode. A
    process that is ended while it computes has its work gone on with by the next.

    Raises:
        TilesChangedError: The file of the tiles was changed meanwhile.
        CacheError: The cache can't be written.
    """
    if network.takes_features:
        return np.asarray(tiles.images)
    file, facts = _keep(network, tiles, compute, view)
    return map_features(file, (len(tiles), network.n_features), facts)


def write_features(network: TileClassifier, tiles: TileSet, compute: Compute, output: Path) -> FeatureFacts:
    """Write features, labels, classes and groups of `tiles` to an HDF5 file, which appears when it is complete."""
    file, facts = _keep(network, tiles, compute, AS_STORED)
    with written_whole(output) as draft:
        shutil.copyfile(file, draft)
        add_labels(draft, tiles.labels, tiles.classes, tiles.groups)
    return facts


def _keep(network: TileClassifier, tiles: TileSet, compute: Compute, view: View) -> tuple[Path, FeatureFacts]:
    """Return the file in the cache and what it holds."""
    facts = FeatureFacts(
        encoder=network.backbone_name,
        encoder_sha256=digest_backbone(network),
        tiles_sha256=tiles.fingerprint,
        tile_size_px=network.tile_size_px,
        preprocessing=network.describe_preprocessing(),
        view=str(view),
        precision="bf16" if compute.is_bf16 else "fp32",
    )
    shape = (len(tiles), network.n_features)

    def make(path: Path) -> None:
        writer = FeatureWriter(path, shape, facts)
        rows = np.arange(writer.n_finished, len(tiles))
        description = f"features, {view}"
        batches = infer_batches(
            FeatureNetwork(network, view), tiles.images, rows=rows, compute=compute, description=description
        )
        for block in _in_blocks(batches):
            check_unchanged(tiles.images)  # what is finished would be taken for features of these tiles later
            writer.append(block)
        writer.close()

    key = cache_key("features", *astuple(facts))
    about = About("features", f"{tiles.source}, {facts.encoder}")
    return made_once(key, _NAME, make, what="features can't be written", about=about, resumes=True), facts


def _in_blocks(batches: Iterator[torch.Tensor]) -> Iterator[Features]:
    """Yield the rows of the batches in blocks of about `_BLOCK_ROWS`."""
    waiting: list[Features] = []
    for batch in batches:
        waiting.append(batch.cpu().numpy())
        if sum(map(len, waiting)) >= _BLOCK_ROWS:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)
