"""A model that is shown the tiles of a slide, which are read while it is busy with those before."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from histo_mlflow.errors import RequestError, UnreadableSlideError
from histo_mlflow.learning.batches import load_ahead
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import choose_batch_size, infer_stream, probabilities_of
from histo_mlflow.models.model import Model
from histo_mlflow.models.symmetries import SymmetricNetwork
from histo_mlflow.models.training_summary import Seen
from histo_mlflow.pipeline.drift import Watch
from histo_mlflow.pipeline.scale import TOLERANCE
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.stream import StreamOptions, stream_tiles

T = TypeVar("T")

MOST_UNREADABLE = 0.05
"""Share of a slide's tiles that may be impossible to decode; of more, what is left is no longer the slide."""

_READERS, _MOST_READERS = 2, 16
"""Threads that read: few where the network computes on the same cores, many where they have nothing else to do."""


@dataclass(frozen=True, eq=False)
class SlideModel:
    """A model as slides are shown to it.

    Attributes:
        model: Its network as the runtime runs it.
        digest: Of the model itself.
        compute: What it runs on.
        microns_per_pixel: At which it sees tiles of its size.
        n_views: Symmetries of each tile that it is asked about.
        abstain_below: Probability below which it abstains, or None.
    """

    model: Model
    digest: str
    compute: Compute
    microns_per_pixel: float
    n_views: int = 1
    abstain_below: float | None = None

    @cached_property
    def network(self) -> nn.Module:
        """From tiles to logits ``(n_tiles, n_views, n_classes)``; beside them features, where tiles are compared by them."""
        revealed = None if self.model.summary is None else self.model.revealed
        return SymmetricNetwork(revealed or self.model.folded, self.n_views)


def scale_of(model: Model, given: float) -> float:
    """Return the microns per pixel at which a model sees tiles; `given` serves where the model does not say it (0: not given).

    Raises:
        RequestError: Nobody says it, or the model takes no tiles.
    """
    if model.facts.takes_features:
        raise RequestError(
            f"{model.address} takes features of {model.facts.encoder} and no tiles; give a model that takes tiles"
        )
    own = model.facts.microns_per_pixel
    if own is None and not given:
        raise RequestError(
            f"{model.address} does not say at which scale it has learnt; give the width of a pixel of its tiles in "
            "micrometres: --model-mpp 0.5, or train it with --microns-per-pixel"
        )
    if own is not None and given and abs(given / own - 1) > TOLERANCE:
        raise RequestError(f"model_mpp={given:g}: {model.address} has learnt at {own:g} um per pixel; leave model_mpp out")
    return own or given


@dataclass
class Stopwatch:
    """Seconds in which somebody has waited for what comes."""

    seconds: float = 0.0

    def watch(self, coming: Iterable[T]) -> Iterator[T]:
        """Yield what comes, and count the seconds until it does."""
        iterator = iter(coming)
        while True:
            begun = time.monotonic()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.seconds += time.monotonic() - begun
            yield item


class Said:
    """What a model says of the tiles of a slide, as it comes.

    Attributes:
        probabilities: ``(n_tiles, n_classes)`` float32, the mean over the views.
        spread: ``(n_tiles,)`` float32, as in `ScoredSlide`.
        watch: Compares the tiles, as they are stored, with what the model was tried on.
        waited: How long the network had to wait for pixels.
        unreadable: Rows of the tiles that can't be decoded, of which nothing is said.
    """

    def __init__(self, n_tiles: int, model: Model) -> None:
        self.probabilities = np.zeros((n_tiles, len(model.classes)), np.float32)
        self.spread = np.zeros(n_tiles, np.float32)
        self.watch = Watch(model)
        self.waited = Stopwatch()
        self.unreadable: list[int] = []
        self._is_compared = model.summary is not None

    def leave_out(self, row: int, fault: UnreadableSlideError) -> None:
        """Note that a tile can't be decoded; raises `UnreadableSlideError` where too many can't."""
        self.unreadable.append(row)
        if len(self.unreadable) > MOST_UNREADABLE * len(self.probabilities):
            n_tiles = len(self.probabilities)
            raise UnreadableSlideError(
                f"more than {MOST_UNREADABLE:.0%} of {n_tiles} tiles can't be decoded; copy the slide again whole ({fault})"
            )

    def take(self, rows: NDArray[np.int64], said: NDArray[np.float32]) -> None:
        """Take what was said of some tiles, ``(n_tiles, n_views, n_classes + n_features)``."""
        n_classes = self.probabilities.shape[1]
        of_views = probabilities_of(said[..., :n_classes])
        mean = of_views.mean(axis=1)
        self.probabilities[rows] = mean
        called = mean.argmax(axis=1)
        self.spread[rows] = of_views.std(axis=1)[np.arange(len(rows)), called]
        if self._is_compared:
            self.watch.note(Seen(said[:, 0, :n_classes], said[:, 0, n_classes:] if said.shape[2] > n_classes else None))


def ask_about(slide: Slide, places: Places, model: SlideModel, on_done: Callable[[int], object] = lambda _: None) -> Said:
    """Return what a model says of tiles of a slide, which are read while it is busy with those before.

    `on_done` is told of how many more tiles this is known.

    Raises:
        UnreadableSlideError: More than `MOST_UNREADABLE` of the tiles can't be decoded.
    """
    size_px, device = model.model.facts.tile_size_px, model.compute.device
    said = Said(len(places), model.model)
    if not len(places):
        return said
    workers = _READERS if device.type == "cpu" else max(_READERS, min(_MOST_READERS, os.cpu_count() or 1))
    options = StreamOptions(choose_batch_size(model.network, (size_px, size_px, 3), device), workers, ahead=workers + 2)
    coming: deque[NDArray[np.int64]] = deque()

    def pixels_alone(stream: Iterable[tuple[NDArray[np.int64], NDArray[np.uint8]]]) -> Iterator[NDArray[np.uint8]]:
        for rows, pixels in stream:
            coming.append(rows)
            yield pixels

    # The threads that read end with the block, whatever ends it: what is closed first waits for the one that asks for tiles.
    with (
        closing(stream_tiles(slide, places, size_px, options, said.leave_out)) as stream,
        closing(load_ahead(pixels_alone(stream), device)) as loaded,
    ):
        for batch in infer_stream(model.network, said.waited.watch(loaded), model.compute):
            rows = coming.popleft()
            said.take(rows, batch.cpu().numpy())
            on_done(len(rows))
    on_done(len(said.unreadable))
    return said
