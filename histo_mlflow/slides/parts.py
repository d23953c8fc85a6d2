"""Tiles of one slide in a file of their own, kept until those of all slides are joined; knows nothing of how to choose them."""

import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import TileFormatError, UnreadableSlideError
from histo_mlflow.slides.cutting import Cut
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.stream import stream_tiles
from histo_mlflow.tiles.archive import Archive
from histo_mlflow.tiles.npz_writing import write_npz

ONE_COLOUR, UNREADABLE = "of one colour", "unreadable"
"""Why tiles are left out when they are seen."""

_BLOCK_TILES = 256


@dataclass(frozen=True, eq=False)
class SlidePart:
    """Tiles of a slide as they lie in a file.

    Attributes:
        file: Its pixels, those that are left out among them.
        name: Of the slide.
        is_kept: ``(n_chosen,)``, which of the chosen tiles are in the set.
        classes: ``(n_chosen,)`` names; likewise `regions`, and `left` and `top`, in pixels of level 0.
        regions: See `classes`.
        left: See `classes`.
        top: See `classes`.
        edge_px: Edge length in pixels of level 0.
        left_out: Number of tiles by class and reason.
        conflicts: Left, top of squares in two classes, ``(n, 2)``.
        pairs: Number of these by the two classes.
    """

    file: Path
    name: str
    is_kept: NDArray[np.bool_]
    classes: NDArray[np.str_]
    regions: NDArray[np.str_]
    left: NDArray[np.int64]
    top: NDArray[np.int64]
    edge_px: int
    left_out: Counter[tuple[str, str]]
    conflicts: NDArray[np.int64]
    pairs: Counter[tuple[str, str]]

    def __len__(self) -> int:
        return int(self.is_kept.sum())

    @property
    def counts(self) -> Counter[str]:
        """Number of tiles of each class."""
        return Counter(self.classes[self.is_kept].tolist())

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the pixels of the tiles that are kept, a block at a time."""
        with Archive(self.file) as archive:
            for first, block in enumerate(archive.find("data").row_blocks(_BLOCK_TILES)):
                yield block[self.is_kept[first * _BLOCK_TILES :][: len(block)]]


def write_part(file: Path, key: str, slide: Slide, cut: Cut, size_px: int, progress: Any) -> None:
    """Read the chosen tiles of a slide and write them to a file that appears when it is whole.

    A tile of one colour shows nothing, for instance where nothing was scanned; as the same in all slides it would tie patients
    together.

    Args:
        file: To be written.
        key: What the tiles depend on; see `find_part`.
        slide: Is read.
        cut: What is chosen.
        size_px: Edge of a tile.
        progress: Its `update` is told of the number of tiles.

    Raises:
        UnreadableSlideError: None of the tiles can be read.
    """
    n_tiles = len(cut.places)
    why = np.full(n_tiles, UNREADABLE, dtype="U20")
    faults: list[UnreadableSlideError] = []

    def blocks() -> Iterator[NDArray[np.uint8]]:
        blank = np.zeros((1, size_px, size_px, 3), np.uint8)
        n_done = 0
        for rows, tiles in stream_tiles(slide, cut.places, size_px, on_unreadable=lambda _, fault: faults.append(fault)):
            why[rows] = np.where((tiles == tiles[:, :1, :1]).all(axis=(1, 2, 3)), ONE_COLOUR, "")
            whole = np.zeros((int(rows[-1]) + 1 - n_done, *blank.shape[1:]), np.uint8)  # unreadable ones are black
            whole[rows - n_done] = tiles
            n_done += len(whole)
            progress.update(len(whole))
            yield whole
        for _ in range(n_done, n_tiles):
            yield blank
        if n_tiles and (why == UNREADABLE).all():
            raise faults[0]

    places = np.stack([cut.conflicts.left, cut.conflicts.top], axis=1)
    facts = {
        "key": key,
        "edge_px": cut.places.edge_px,
        "left_out": [[*what, n] for what, n in cut.left_out.items()],
        "pairs": [[*pair, n] for pair, n in cut.pairs.items()],
    }
    arrays = {
        "why": why, "classes": cut.classes, "regions": cut.regions, "left": cut.places.left, "top": cut.places.top,
        "conflicts": places, "facts": np.array(json.dumps(facts)),
    }  # fmt: skip
    write_npz(file, blocks(), (n_tiles, size_px, size_px, 3), arrays)


def find_part(file: Path, key: str, name: str) -> SlidePart | None:
    """Return the tiles of the slide `name` if they lie in `file` already, and depend on what `key` says."""
    try:
        with np.load(file, allow_pickle=False) as found:
            facts = json.loads(str(found["facts"]))
            if facts["key"] != key:
                return None
            why, classes = found["why"], found["classes"]
            left_out = Counter({(each, reason): n for each, reason, n in facts["left_out"]})
            left_out.update((each, reason) for each, reason in zip(classes.tolist(), why.tolist(), strict=True) if reason)
            pairs = Counter({(first, second): n for first, second, n in facts["pairs"]})
            arrays = classes, found["regions"], found["left"], found["top"]
            return SlidePart(file, name, why == "", *arrays, facts["edge_px"], left_out, found["conflicts"], pairs)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, TileFormatError):
        return None
