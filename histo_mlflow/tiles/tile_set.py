"""The one form in which tiles travel; knows nothing of files and folders."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import RequestError, TileFormatError
from histo_mlflow.served_model.decoding import ImageError, check_form
from histo_mlflow.tiles.on_slides import OnSlides
from histo_mlflow.tiles.options import GROUP, PATIENT, SITE, SLIDE
from histo_mlflow.tiles.pixels import Pixels

COLORECTAL_CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
"""The nine tissue classes in label order: adipose, background, debris, lymphocytes, mucus, smooth muscle, normal mucosa,
stroma, tumour (Kather et al. 2018, NCT-CRC-HE-100K)."""

# What NaN, None and missing values of tables become as text, in small letters.
_NO_GROUP = ("", "nan", "-nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat")

# What MLflow takes in the name of a metric; with a hyphen in front a spreadsheet would take it for a formula.
_CLASS_NAME = re.compile(r"[\w.:]([\w.: -]*[\w.:-])?")


@dataclass(frozen=True)
class Form:
    """What tiles come as: pixels, or features that an encoder has made of them.

    Attributes:
        encoder: What has made them, in words; "" of pixels.
        n_features: Of each tile; 0 of pixels.
    """

    encoder: str = ""
    n_features: int = 0

    def __str__(self) -> str:
        return f"{self.n_features} features by {self.encoder}" if self.encoder else "pixels"


PIXELS = Form()


@dataclass(frozen=True, eq=False)
class TileSet:
    """Labelled tiles, as pixels or as features that an encoder has made of them.

    Attributes:
        images: ``(n_tiles, height, width, 3)`` uint8 RGB, or features ``(n_tiles, n_features)`` float32, read-only, mostly a
            memory map, or several seen as one.
        labels: ``(n_tiles,)`` int64, positions in `classes`.
        classes: Class names in label order.
        groups: ``(n_tiles,)`` ids of patient or slide, or None: of whom intervals speak. A split keeps them together too, or a
            level of `levels`.
        source: Where the tiles came from, for people.
        fingerprint: SHA-256 over all pixels and labels (hex), the same whatever the file format.
        is_synthetic: True for the demo tiles, which are not tissue.
        microns_per_pixel: Width of a pixel of a stored tile in micrometres, or None where it is not given.
        passed_over: What lay beside the tiles and was not read, in words.
        notes: What was done to them when they were read, in words.
        given_names: ``(n_tiles,)`` paths of the tiles below their source, with ``/``; None where they are not files.
        levels: ``(n_tiles,)`` ids by level (`LEVELS`, or clusters of like tiles), from coarse to fine; of a set whose `groups`
            alone are known, nothing.
        copies: ``(n_tiles,)`` int64, the same number for tiles that are copies of one another; None if that is not known.
        encoder: What has made the features, in words; "" of pixels.
        on_slides: Where the tiles lie on the slides that they were cut from; None if that is not known.
    """

    images: Pixels
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    groups: NDArray[np.str_] | None
    source: str
    fingerprint: str
    is_synthetic: bool = False
    microns_per_pixel: float | None = None
    passed_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    given_names: NDArray[np.str_] | None = None
    levels: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    copies: NDArray[np.int64] | None = None
    encoder: str = ""
    on_slides: OnSlides | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def tile_size_px(self) -> int:
        """Edge length of a stored tile in pixels; 0 of features."""
        return 0 if self.encoder else int(self.images.shape[1])

    @property
    def form(self) -> Form:
        """What its tiles come as."""
        return Form(self.encoder, int(self.images.shape[1]) if self.encoder else 0)

    @property
    def names(self) -> NDArray[np.str_]:
        """``(n_tiles,)``, what each tile is called: its path below the source, or its position as text."""
        return np.arange(len(self)).astype(np.str_) if self.given_names is None else self.given_names

    def microns_at(self, size_px: int) -> float | None:
        """Return the width of a pixel in micrometres when whole tiles are brought to this edge length, or None."""
        if self.microns_per_pixel is None or self.encoder:
            return None
        return self.microns_per_pixel * self.tile_size_px / size_px

    @property
    def known_levels(self) -> Mapping[str, NDArray[np.str_]]:
        """The levels, or the groups as the only one."""
        return self.levels or ({} if self.groups is None else {GROUP: self.groups})

    def with_levels(self, levels: Mapping[str, NDArray[np.str_]]) -> "TileSet":
        """Return the set with these levels; its groups are the patients, or what is nearest to them."""
        known = [levels[level] for level in (PATIENT, GROUP, SLIDE, SITE) if level in levels]
        return replace(self, levels=dict(levels), groups=known[0] if known else None)

    def describe(self) -> str:
        """Return where the tiles came from and what was done to them, in words."""
        return f"{self.source} ({'; '.join(self.notes)})" if self.notes else self.source

    def class_counts(self) -> dict[str, int]:
        """Return the number of tiles of each class, in class order."""
        return self.part("all").class_counts()

    def part(self, name: str, rows: "NDArray[np.int64] | None" = None) -> "Part":
        """Return the tiles at the positions `rows`, or all of them, as a part called `name`."""
        return Part(self, np.arange(len(self)) if rows is None else rows, name)


@dataclass(frozen=True, eq=False)
class Part:
    """Some tiles of a set, and what they are called.

    Attributes:
        tiles: The set.
        rows: ``(n_tiles,)`` int64, their positions in the set.
        name: For instance train, val or test.
    """

    tiles: TileSet
    rows: NDArray[np.int64]
    name: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def source(self) -> str:
        """Where the tiles of the set came from, for people."""
        return self.tiles.source

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the set, in label order."""
        return self.tiles.classes

    @property
    def labels(self) -> NDArray[np.int64]:
        """``(n_tiles,)``, positions in the classes of the set."""
        return self.tiles.labels[self.rows]

    @property
    def groups(self) -> NDArray[np.str_] | None:
        """``(n_tiles,)`` ids of patient or slide, or None."""
        return None if self.tiles.groups is None else self.tiles.groups[self.rows]

    def count_classes(self) -> NDArray[np.int64]:
        """Return the number of tiles of each class, ``(n_classes,)``."""
        return np.bincount(self.labels, minlength=len(self.tiles.classes))

    def class_counts(self) -> dict[str, int]:
        """Return the number of tiles of each class by name, in class order."""
        return dict(zip(self.tiles.classes, self.count_classes().tolist(), strict=True))


def check_pixels(shape: tuple[int, ...], dtype: np.dtype[Any], *, where: str) -> None:
    """Raise `TileFormatError` unless an array of this form is ``(n_tiles, size, size, 3)`` uint8 with at least one tile."""
    if dtype != np.uint8:
        raise TileFormatError(f"{where} holds {dtype} values; tiles must be uint8 RGB, 0 to 255: convert them before saving")
    if len(shape) != 4 or shape[3] != 3:
        raise TileFormatError(
            f"{where} has shape {shape}; tiles must be (n_tiles, height, width, 3): stack them so and save again"
        )
    if shape[0] == 0:
        raise TileFormatError(f"{where} holds no tiles; check how it was made")
    try:
        check_form(shape[2], shape[1])
    except ImageError as error:
        raise TileFormatError(f"{where}: each tile {error}; cut or pad them") from None


def check_labels(labels: NDArray[np.generic], *, n_classes: int, where: str) -> NDArray[np.int64]:
    """Return `labels` ``(n_tiles,)`` as int64; raises `TileFormatError` unless they are integers from 0 to `n_classes` - 1."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise TileFormatError(f"{where} holds {labels.dtype} labels; labels must be integers, 0 to {n_classes - 1}")
    wrong = np.flatnonzero((labels < 0) | (labels >= n_classes))  # type: ignore[operator]
    if len(wrong):
        raise TileFormatError(
            f"{where}: label {labels[wrong[0]]} of tile {wrong[0]} is out of range; labels are 0 to {n_classes - 1}, positions "
            "in `classes`"
        )
    return labels.astype(np.int64)


def check_groups(groups: NDArray[np.str_], *, where: str) -> NDArray[np.str_]:
    """Return the ids ``(n_tiles,)`` without spaces around them, which would make two patients of one.

    Raises:
        TileFormatError: Tiles have an id that stands for none, by which all of them would be taken for one patient.
    """
    groups = np.strings.strip(groups)
    unknown = np.flatnonzero(np.isin(np.strings.lower(groups), _NO_GROUP))
    if len(unknown):
        raise TileFormatError(
            f"{where}: {len(unknown)} of {len(groups)} tiles have no group (tile {unknown[0]}: {str(groups[unknown[0]])!r}) "
            "and would be taken for one patient; name the patient or slide of each, or leave those tiles out"
        )
    return groups


def check_classes(names: list[str], *, where: str) -> tuple[str, ...]:
    """Return class names as a tuple, composed (NFC), or raise `TileFormatError` if they are fewer than two, unfit or repeated.

    A Mac writes names of files decomposed: the same letters, and not the same string.
    """
    names = [unicodedata.normalize("NFC", name) for name in names]
    if len(names) < 2:
        raise TileFormatError(f"{where} names {len(names)} class(es); a classifier needs at least two")
    if unfit := [name for name in names if not _CLASS_NAME.fullmatch(name)]:
        raise TileFormatError(
            f"{where} has the class name {unfit[0]!r}; names become parts of metric names: rename it to letters, digits, "
            "spaces, '.', '-', '_' or ':', the first no '-'"
        )
    if len(set(names)) < len(names):
        raise TileFormatError(f"{where} has repeated class names: {' '.join(names)}; give each class its own")
    return tuple(names)


def order_classes(names: Sequence[str], *, where: str) -> tuple[str, ...]:
    """Return the nine tissue classes if all names are among them, else the names as they stand; raises as `check_classes`."""
    checked = check_classes(list(names), where=where)
    return COLORECTAL_CLASSES if set(checked) <= set(COLORECTAL_CLASSES) else checked


def with_class_order(tiles: TileSet, classes: tuple[str, ...]) -> TileSet:
    """Return `tiles` with labels that are positions in `classes`; classes are matched by name, never by position.

    Raises:
        RequestError: `tiles` has tiles of a class that `classes` does not hold.
    """
    if tiles.classes == classes:
        return tiles
    present = [name for name, count in tiles.class_counts().items() if count]
    if strangers := [name for name in present if name not in classes]:
        raise RequestError(
            f"{tiles.source} has tiles of {' '.join(strangers)}, but the classes are {' '.join(classes)}: "
            "rename its folders or its `classes`, or leave those tiles out"
        )
    position = np.array([classes.index(name) if name in classes else -1 for name in tiles.classes])
    return replace(tiles, labels=position[tiles.labels], classes=classes)
