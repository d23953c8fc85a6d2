"""From slides and what was drawn on them to one set of tiles: slide by slide, each kept when it is done, then joined."""

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.digests import sha256_of
from histo_mlflow.base.progress import Bar
from histo_mlflow.console import warn
from histo_mlflow.errors import OptionError, RequestError, UnreadableSlideError
from histo_mlflow.options import output_path
from histo_mlflow.slides.annotations import IGNORE, Annotations, read_annotations
from histo_mlflow.slides.cutting import Ground, areas_of, check_on_slide, choose_tiles
from histo_mlflow.slides.grid import lay_grid
from histo_mlflow.slides.listing import files_of, list_slides
from histo_mlflow.slides.open import open_slide
from histo_mlflow.slides.options import CutOptions, GridOptions, TissueOptions
from histo_mlflow.slides.pairing import AnnotatedSlide, pair_slides
from histo_mlflow.slides.parts import SlidePart, find_part, write_part
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.tissue import Tissue, find_tissue
from histo_mlflow.tiles.asked import levels_of_slides
from histo_mlflow.tiles.class_map import read_class_map
from histo_mlflow.tiles.npz_writing import write_npz
from histo_mlflow.tiles.on_slides import EDGE, LEFT, TOP
from histo_mlflow.tiles.options import PATIENT, REGION, SLIDE
from histo_mlflow.tiles.small_arrays import GROUPS, LEVEL_ARRAYS
from histo_mlflow.tiles.tile_set import check_classes

_N_NAMED = 5
_MOST_BLOWN_UP = 1.1  # as far as scales may differ between a model and its tiles


@dataclass(frozen=True)
class CutPlan:
    """What the tiles of every slide depend on.

    Attributes:
        size_px: Edge of a tile.
        microns_per_pixel: Of a tile.
        slides_microns: Of level 0 of slides of which neither their file nor a table says it; None: not given.
        tissue: How it is found.
        grid: How tiles are laid.
        rules: Which become tiles.
        seed: Of what is drawn at random.
    """

    size_px: int
    microns_per_pixel: float
    slides_microns: float | None
    tissue: TissueOptions
    grid: GridOptions
    rules: CutOptions
    seed: int


@dataclass(frozen=True, eq=False)
class Marked:
    """Slides with what was drawn on them.

    Attributes:
        pairs: In the order of the slides.
        annotations: By the name of the slide.
        levels: Ids ``(n_pairs,)`` of the slides by level.
        new_names: Of classes, None for those that are left out.
        classes: Those that there may be tiles of, sorted.
        faults: What is wrong, by the name of the slide, of those whose annotations can't be read.
    """

    pairs: tuple[AnnotatedSlide, ...]
    annotations: Mapping[str, Annotations]
    levels: Mapping[str, NDArray[np.str_]]
    new_names: Mapping[str, str | None]
    classes: tuple[str, ...]
    faults: Mapping[str, Exception]

    @property
    def patients(self) -> dict[str, str]:
        """Whose each slide is, by its name; the slide itself where that is not known."""
        names = [each.slide.name for each in self.pairs]
        return dict(zip(names, map(str, self.levels.get(PATIENT, names)), strict=True))


def check_output(text: str) -> Path:
    """Return the file to write; raises `RequestError` if none can be written there, or it has another ending."""
    output = output_path(text)
    if output.is_dir() or output.suffix != ".npz":
        raise OptionError(f"output={output}: name a file that ends in .npz")
    return output


def open_marked(slides: str, annotations: str | None, groups: str, classes: str | None, rules: CutOptions) -> Marked:
    """Return the slides that have annotations, with these, and say what is left alone.

    Raises:
        RequestError: There are none, or fewer than two classes, or a class has a name that none can have.
    """
    source = Path(slides).expanduser()
    listed = list_slides(source)
    found = pair_slides(listed, source, annotations)
    names = np.array([each.slide.name for each in found.slides])
    levels = dict(levels_of_slides(groups, names))
    of_table = [each.slide.patient or "" for each in found.slides]
    if not levels and any(of_table):
        if "" in of_table:
            raise OptionError(
                f"slides={slides}: {names[of_table.index('')]} has no patient; name that of each slide, or of none"
            )
        levels = {PATIENT: np.array(of_table)}
    read, faults = _read_all(found.slides)
    if len(faults) == len(found.slides):
        raise next(iter(faults.values()))
    for text in listed.passed_over:
        warn(f"passed over: {text} is no slide that can be read")
    _name("slides without annotations, which are left alone", found.bare)
    _name("annotations without a slide", [str(file) for file in found.lost])
    new_names = _new_names(read, classes)
    kept = {new for each in read.values() for old in each.classes if (new := new_names.get(old, old))}
    where = f"annotations={annotations or slides}"
    if not kept:
        raise RequestError(f"{where}: no object has a class; give annotations a class in QuPath and export them again")
    if strangers := rules.classes_without_tissue - kept:
        raise OptionError(f"without_tissue={','.join(sorted(strangers))}: the classes are {' '.join(sorted(kept))}")
    wanted = check_classes(sorted(kept | {rules.background_class} - {""}), where=where)
    return Marked(found.slides, read, levels, new_names, wanted, faults)


def _read_all(pairs: Sequence[AnnotatedSlide]) -> tuple[dict[str, Annotations], dict[str, Exception]]:
    read, faults = {}, dict[str, Exception]()
    for pair in pairs:
        try:
            annotations = read_annotations(pair.annotations)
            if not annotations.regions:
                beside = f" ({'; '.join(annotations.notes)})" if annotations.notes else ""
                raise RequestError(f"{pair.annotations} holds no region with a class{beside}")
        except RequestError as error:
            faults[pair.slide.name] = error
            continue
        read[pair.slide.name] = annotations
        for note in annotations.notes:
            warn(f"{pair.annotations}: {note}")
    return read, faults


def _new_names(read: Mapping[str, Annotations], classes: str | None) -> dict[str, str | None]:
    found = sorted({name for each in read.values() for name in each.classes})
    return {IGNORE: None} | ({} if classes is None else read_class_map(classes, tuple(found)))


def _name(what: str, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
        warn(f"{len(names)} {what}: {', '.join(names[:_N_NAMED])}{more}")


def cut_slides(plan: CutPlan, marked: Marked, folder: Path) -> tuple[list[SlidePart], dict[str, Exception]]:
    """Return the tiles of each slide, kept in `folder`, and what is wrong with the others, by name.

    Those that lie there already are taken from there. A slide that can't be cut does not stop the others.
    """
    parts, faults = [], dict(marked.faults)
    asked = [pair for pair in marked.pairs if pair.slide.name in marked.annotations]
    with Bar[None](total=len(asked), desc="slides", unit="slide") as bar:
        for pair in asked:
            name = pair.slide.name
            file, key = folder / f"{name}.npz", _key_of(plan, pair, marked.new_names)
            try:
                part = find_part(file, key, name)
                if part is None:
                    _cut_slide(plan, pair, marked, file=file, key=key)
                    part = find_part(file, key, name)
                assert part is not None
                parts.append(part)
            except (RequestError, UnreadableSlideError, OSError) as error:
                faults[name] = error
                warn(f"{name}: {error}")
            bar.update()
    return parts, faults


def _cut_slide(plan: CutPlan, pair: AnnotatedSlide, marked: Marked, *, file: Path, key: str) -> None:
    asked, annotations = pair.slide, marked.annotations[pair.slide.name]
    slide = open_slide(asked.path, asked.microns_per_pixel or plan.slides_microns)
    try:
        check_on_slide(annotations, slide.size_px, file=pair.annotations, slide=asked.path)
        grid_everywhere = _everywhere(plan, slide)
        ground = Ground(slide.size_px, areas_of(annotations, marked.new_names), find_tissue(slide, plan.tissue))
        generator = np.random.default_rng([plan.seed, zlib.crc32(asked.name.encode())])
        cut = choose_tiles(grid_everywhere, ground, plan.rules, least_tissue=plan.grid.least_tissue, generator=generator)
        with Bar[None](total=len(cut.places), desc=asked.name, unit="tile") as bar:
            write_part(file, key, slide, cut, plan.size_px, bar)
    finally:
        slide.close()


def _everywhere(plan: CutPlan, slide: Slide) -> Places:
    """Return a grid over all of a slide, tissue or not."""
    own = slide.microns_per_pixel
    if own is None:
        raise OptionError(
            f"{slide.path} does not state its microns per pixel; give mpp=, or a table of slides with a column mpp"
        )
    if own > plan.microns_per_pixel * _MOST_BLOWN_UP:
        raise OptionError(
            f"{slide.path} has {own:g} micrometres per pixel, and tiles of {plan.microns_per_pixel:g} would be blown up; give "
            f"microns_per_pixel={own:g} or more"
        )
    everywhere = Tissue(np.ones((1, 1), np.bool_), float(2 * max(slide.size_px)))
    return lay_grid(
        slide, everywhere, size_px=plan.size_px, microns_per_pixel=plan.microns_per_pixel, stride=plan.grid.stride,
        least_tissue=0.0,
    )  # fmt: skip


def _key_of(plan: CutPlan, pair: AnnotatedSlide, new_names: Mapping[str, str | None]) -> str:
    """Return what the tiles of a slide depend on, as a SHA-256 (hex): all of the plan, the slide's files, its annotations."""
    files = [each for each in files_of(pair.slide.path) if each.exists()]
    stats = [(str(each.resolve()), each.stat().st_size, each.stat().st_mtime_ns) for each in files]
    drawn = sha256_of(pair.annotations)
    on = [asdict(plan), stats, pair.slide.microns_per_pixel, drawn, sorted(new_names.items())]
    return hashlib.sha256(json.dumps(on).encode()).hexdigest()


def count_tiles(parts: Sequence[SlidePart]) -> dict[str, int]:
    """Return the number of tiles of each class, sorted by name; of those without tiles, nothing."""
    return dict(sorted(sum((part.counts for part in parts), Counter[str]()).items()))


def join_parts(parts: Sequence[SlidePart], plan: CutPlan, marked: Marked, output: Path) -> None:
    """Write the tiles of all slides to one ``.npz``, in bounded memory."""
    classes = list(count_tiles(parts))
    sizes = [len(part) for part in parts]
    names = [each.slide.name for each in marked.pairs]
    of_pair = np.repeat([names.index(part.name) for part in parts], sizes)
    levels = {level: ids[of_pair] for level, ids in marked.levels.items()} | {SLIDE: np.array(names)[of_pair]}
    levels[REGION] = np.concatenate([np.strings.add(f"{part.name}/", part.regions[part.is_kept]) for part in parts])
    groups = levels.get(PATIENT, levels[SLIDE])
    of_class = np.concatenate([part.classes[part.is_kept] for part in parts])
    arrays: dict[str, Any] = {
        "labels": np.searchsorted(classes, of_class).astype(np.int64),
        "classes": np.array(classes),
        **{key: levels[level] for key, level in LEVEL_ARRAYS.items() if level in levels},
        GROUPS: levels.get(LEVEL_ARRAYS[GROUPS], groups),
        LEFT: np.concatenate([part.left[part.is_kept] for part in parts]),
        TOP: np.concatenate([part.top[part.is_kept] for part in parts]),
        EDGE: np.repeat([part.edge_px for part in parts], sizes),
        "microns_per_pixel": np.array(plan.microns_per_pixel),
    }
    n_tiles, size = sum(sizes), plan.size_px
    with Bar[None](total=n_tiles, desc=f"join {output.name}", unit="tile") as bar:
        blocks = (block for part in parts for block in part.blocks() if bar.update(len(block)) or True)
        write_npz(output, blocks, (n_tiles, size, size, 3), arrays)
