"""One slide through one model: opened, its scale settled, tissue found, its tiles shown to the model."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from histo_mlflow.errors import RequestError, UnreadableSlideError
from histo_mlflow.pipeline.drift import Compared
from histo_mlflow.pipeline.scale import TOLERANCE
from histo_mlflow.pipeline.slides.model import SlideModel, ask_about
from histo_mlflow.slides.grid import lay_grid
from histo_mlflow.slides.listing import SlideFile
from histo_mlflow.slides.open import open_slide
from histo_mlflow.slides.options import GridOptions, TissueOptions
from histo_mlflow.slides.scored import ScoredSlide
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.tissue import Tissue, find_tissue
from histo_mlflow.slides.tissue_files import read_tissue

_TISSUE_ENDINGS = (".tissue.geojson", ".geojson", ".geojson.gz", ".json", ".png")
"""That of an output folder comes first: beside it lie results and a picture that end as regions and masks may."""


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
        UnreadableSlideError: Its overview can't be read, or too many of its tiles.
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
    is_read = np.ones(len(places), bool)
    is_read[said.unreadable] = False
    probabilities, unread = said.probabilities[is_read], places.at(np.flatnonzero(~is_read))
    highest = probabilities.max(axis=1, initial=0)
    scored = ScoredSlide(
        name=name,
        size_px=slide.size_px,
        microns_per_pixel=microns_per_pixel,
        places=places.at(np.flatnonzero(is_read)),
        classes=model.model.classes,
        probabilities=probabilities,
        abstained=None if model.abstain_below is None else highest < model.abstain_below,
        spread=said.spread[is_read] if model.n_views > 1 else None,
        unreadable=tuple(zip(unread.left.tolist(), unread.top.tolist(), strict=True)),
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
