"""The tiles that a page shows: errors with the evidence for them, examples of each class, what a network was shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.gallery import (
    PER_ROW,
    Album,
    GalleryRow,
    Shown,
    caption,
    choose_errors,
    choose_examples,
    lay_over,
)
from histo_mlflow.evaluation.marks import meaning_of
from histo_mlflow.learning.augmentation import change, transforms_in
from histo_mlflow.learning.grad_cam import grad_cam
from histo_mlflow.learning.options import HEAD, Recipe
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.tiles.tile_set import TileSet

SMALLEST_MAPPED_PX = 96
"""Of the network's tiles: the last convolution then has 3 x 3 cells; fewer say nothing of where evidence lies."""


@dataclass(frozen=True, eq=False)
class Training:
    """From what and how a network has learnt, as far as it can be shown.

    Attributes:
        tiles: The set that it has learnt from.
        rows: ``(n_tiles,)`` positions of the tiles that it was shown.
        recipe: How they were changed in which epoch.
    """

    tiles: TileSet
    rows: NDArray[np.int64]
    recipe: Recipe


def collect_album(
    findings: Findings,
    tiles: TileSet,
    network: Callable[[], TileClassifier | None] | None,
    device: torch.device,
    training: Training | None = None,
) -> Album:
    """Return the tiles to look at of a scored split of `tiles`, and what the network was shown if that is known."""
    errors = collect_errors(findings, tiles, network, device)
    return Album(errors, collect_examples(findings, tiles), [] if training is None else show_seen(training))


def collect_errors(
    findings: Findings, tiles: TileSet, network: Callable[[], TileClassifier | None] | None, device: torch.device
) -> list[GalleryRow]:
    """Return the errors to look at, with the evidence for the called class where there is a `network` to ask."""
    predictions, rows, gallery = findings.predictions, findings.indices, []
    for heading, chosen in choose_errors(predictions):
        images = np.array(tiles.images[rows[chosen]])
        asked, maps = network and network(), None
        if asked is not None and asked.pooling is not None and asked.tile_size_px >= SMALLEST_MAPPED_PX:
            maps = grad_cam(asked, images, predictions.predicted[chosen], device=device)
        shown = [
            Shown(
                image,
                None if maps is None else lay_over(image, maps[k]),
                caption(predictions, int(row), int(rows[row])),
                _origin_of(findings, int(row)),
            )
            for k, (image, row) in enumerate(zip(images, chosen, strict=True))
        ]
        gallery.append(GalleryRow(heading, tuple(shown)))
    return gallery


def collect_examples(findings: Findings, tiles: TileSet) -> list[GalleryRow]:
    """Return some tiles of each class, as they are labelled."""
    return [
        GalleryRow(partial(_heading_of, k), tuple(_example(findings, tiles, int(row)) for row in chosen))
        for k, chosen in choose_examples(findings.predictions)
    ]


def _heading_of(k: int, names: tuple[str, ...]) -> str:
    meaning = meaning_of(names[k])
    return f"{names[k]} ({meaning})" if meaning else names[k]


def _example(findings: Findings, tiles: TileSet, row: int) -> Shown:
    predictions, position = findings.predictions, int(findings.indices[row])
    called, confidence = predictions.predicted[row], predictions.confidence[row]
    words = partial(_describe_call, position, int(called), float(confidence), bool(predictions.is_wrong[row]))
    return Shown(np.array(tiles.images[[position]])[0], None, words, _origin_of(findings, row))


def _describe_call(position: int, called: int, confidence: float, is_wrong: bool, names: tuple[str, ...]) -> str:
    return f"tile {position}: called {names[called]} ({confidence:.2f}){', wrong' if is_wrong else ''}"


def _origin_of(findings: Findings, row: int) -> str:
    """Return the file of a tile and its group, as far as they are known; its position stands in the caption."""
    groups = findings.predictions.groups
    name = [] if findings.given_names is None else [str(findings.given_names[row])]
    return "; ".join([*name, *([] if groups is None else [f"group {groups[row]}"])])


def show_seen(training: Training) -> list[GalleryRow]:
    """Return training tiles as the network was shown them, a row for each run of epochs with the same changes.

    The tiles are the same in each row, and the chance is that of a fixed seed: examples, not the very tiles of an epoch.
    """
    fit, options = training.recipe.fit, training.recipe.augmentation
    if fit.trainable == HEAD or training.tiles.encoder:  # one look at each tile, kept as features
        return []
    rows = training.rows[np.unique(np.linspace(0, len(training.rows) - 1, PER_ROW).round().astype(np.int64))]
    images = torch.from_numpy(np.array(training.tiles.images[rows]))
    windows: list[tuple[int, int]] = []
    for epoch in range(1, fit.epochs + 1):
        if windows and transforms_in(epoch, options) == transforms_in(windows[-1][0], options):
            windows[-1] = (windows[-1][0], epoch)
        else:
            windows.append((epoch, epoch))
    seen = []
    for first, last in windows:
        transforms = transforms_in(first, options)
        changed = change(images, transforms, torch.Generator().manual_seed(first), n_drawn=len(images)).numpy()
        epochs = f"epoch {first}" if first == last else f"epochs {first} to {last}"
        how = "augmented" if transforms else "as they are"
        shown = tuple(
            Shown(image, None, partial(_describe_seen, int(row), int(training.tiles.labels[row])))
            for image, row in zip(changed, rows, strict=True)
        )
        seen.append(GalleryRow(partial(_say, f"{epochs[0].upper()}{epochs[1:]}: {how}"), shown))
    return seen


def _describe_seen(position: int, label: int, names: tuple[str, ...]) -> str:
    return f"tile {position}: {names[label]}"


def _say(words: str, _: tuple[str, ...]) -> str:
    return words
