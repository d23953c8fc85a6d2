"""One slide through one model: opened, its scale settled, tissue found, tiles streamed through the network."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
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
from histo_mlflow.pipeline.drift import Compared, Watch
from histo_mlflow.pipeline.scale import TOLERANCE
from histo_mlflow.slides.grid import lay_grid
from histo_mlflow.slides.listing import SlideFile
from histo_mlflow.slides.open import open_slide
from histo_mlflow.slides.options import GridOptions, TissueOptions
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.scored import ScoredSlide
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.stream import StreamOptions, stream_tiles
from histo_mlflow.slides.tissue import Tissue, find_tissue
from histo_mlflow.slides.tissue_files import read_tissue

T = TypeVar("T")

_READERS, _MOST_READERS = 2, 16
"""Threads that read: few where the network computes on the same cores, many where they have nothing else to do."""
_TISSUE_ENDINGS = (".tissue.geojson", ".geojson", ".geojson.gz", ".json", ".png")
"""That of an output folder comes first: beside it lie results and a picture that end as regions and masks may."""


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


@dataclass(frozen=True)
class SlideRules:
    """What slides are asked for.

    Attributes:
        grid: How tiles are laid.
        tissue: What counts as tissue.
        regions: A file, or a folder with one for each slide, that says where the tissue is; None: it is found.
        microns_per_pixel: Of slides that do not state it; None if nobody does.
    """

    grid: GridOptions = field(default_factory=GridOptions)
    tissue: TissueOptions = field(default_factory=TissueOptions)
    regions: Path | None = None
    microns_per_pixel: float | None = None


@dataclass(frozen=True, eq=False)
class SlideScore:
    """What was found of a slide.

    Attributes:
        scored: The tiles with what the model says.
        tissue: Where tissue is.
        compared: With what the model was tried on.
        waited_seconds: In which the network had to wait for pixels.
    """

    scored: ScoredSlide
    tissue: Tissue
    compared: Compared
    waited_seconds: float


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


@contextmanager
def opened_slide(file: SlideFile, rules: SlideRules, model: SlideModel) -> Iterator[Slide]:
    """Give a slide whose scale is known and fine enough for the model.

    Raises:
        UnreadableSlideError: It can't be read, does not state its scale, or is too coarse.
    """
    slide = open_slide(file.path, file.microns_per_pixel)
    if slide.microns_per_pixel is None and rules.microns_per_pixel is not None:
        slide.close()
        slide = open_slide(file.path, rules.microns_per_pixel)
    with closing(slide):
        own, wanted = slide.microns_per_pixel, model.microns_per_pixel
        if own is None:
            raise UnreadableSlideError(
                f"{file.path} does not state the width of its pixels; give it in micrometres: --mpp 0.25 (40x) or 0.5 (20x), "
                "or a table of slides with a column mpp"
            )
        if own > wanted * (1 + TOLERANCE):
            raise UnreadableSlideError(
                f"{file.path} has {own:g} um per pixel and the model has learnt at {wanted:g}: what was not scanned can't be "
                "shown; scan it at a higher magnification, or correct --mpp"
            )
        yield slide


def score_slide(
    slide: Slide, name: str, rules: SlideRules, model: SlideModel, on_tiles: Callable[[int, int], object] = lambda *_: None
) -> SlideScore:
    """Return what a model says of a slide.

    Args:
        slide: As `opened_slide` gives it.
        name: What it is called.
        rules: What is asked for.
        model: What is asked.
        on_tiles: Told how many more tiles are done, and how many there are.

    Raises:
        UnreadableSlideError: A part of it can't be read.
        RequestError: The regions that are given can't be used.
    """
    microns_per_pixel = slide.microns_per_pixel
    assert microns_per_pixel is not None
    tissue = _tissue_of(slide, name, rules)
    places = lay_grid(
        slide, tissue, size_px=model.model.facts.tile_size_px, microns_per_pixel=model.microns_per_pixel,
        stride=rules.grid.stride, least_tissue=rules.grid.least_tissue,
    )  # fmt: skip
    on_tiles(0, len(places))
    said = ask_about(slide, places, model, lambda n_done: on_tiles(n_done, len(places)))
    highest = said.probabilities.max(axis=1, initial=0)
    scored = ScoredSlide(
        name=name,
        size_px=slide.size_px,
        microns_per_pixel=microns_per_pixel,
        places=places,
        classes=model.model.classes,
        probabilities=said.probabilities,
        abstained=None if model.abstain_below is None else highest < model.abstain_below,
        spread=said.spread if model.n_views > 1 else None,
    )
    return SlideScore(scored, tissue, said.watch.compared(), said.waited.seconds)


def regions_for(name: str, rules: SlideRules) -> Path | None:
    """Return the file that says where the tissue of a slide is; None: it is to be found.

    Raises:
        RequestError: The folder of such files has none for it.
    """
    if rules.regions is None or not rules.regions.is_dir():
        return rules.regions
    found = [file for ending in _TISSUE_ENDINGS if (file := rules.regions / f"{name}{ending}").is_file()]
    if not found:
        raise RequestError(f"tissue={rules.regions} holds no {name}.geojson and no {name}.png; add it, or leave tissue out")
    return found[0]


def _tissue_of(slide: Slide, name: str, rules: SlideRules) -> Tissue:
    file = regions_for(name, rules)
    return find_tissue(slide, rules.tissue) if file is None else read_tissue(file, slide)


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
    """

    def __init__(self, n_tiles: int, model: Model) -> None:
        self.probabilities = np.zeros((n_tiles, len(model.classes)), np.float32)
        self.spread = np.zeros(n_tiles, np.float32)
        self.watch = Watch(model)
        self.waited = Stopwatch()
        self._is_compared = model.summary is not None

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

    `on_done` is told of how many more tiles this is known. Raises as `stream_tiles`.
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
        closing(stream_tiles(slide, places, size_px, options)) as stream,
        closing(load_ahead(pixels_alone(stream), device)) as loaded,
    ):
        for batch in infer_stream(model.network, said.waited.watch(loaded), model.compute):
            rows = coming.popleft()
            said.take(rows, batch.cpu().numpy())
            on_done(len(rows))
    return said
