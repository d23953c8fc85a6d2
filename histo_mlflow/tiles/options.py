"""What can be asked of tiles: where they are, how they are split; opens nothing."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from histo_mlflow.errors import OptionError
from histo_mlflow.options import Options, option

DEMO = "demo"
STORED, NONE, AUTO = "stored", "none", "auto"

SITE, PATIENT, GROUP, SLIDE, TILE = "site", "patient", "group", "slide", "tile"
LEVELS = (SITE, PATIENT, GROUP, SLIDE)
"""From coarse to fine; a `group` is a patient or a slide, whoever has named it knows which."""

REGION = "region"
"""What was drawn on a slide as one; finer than a slide, and no column of anybody's tables."""


@dataclass(frozen=True)
class Address:
    """What a user writes to name tiles: a path or a name, and perhaps ``#`` and which part of what is there.

    Attributes:
        name: What stands before the ``#``: mostly a path.
        part: What stands behind it, or None.
    """

    name: str
    part: str | None

    @classmethod
    def of(cls, text: str) -> "Address":
        """Return the address that `text` means; a ``#`` that is in the name of an existing file or folder is part of it."""
        name, _, part = text.rpartition("#")
        return cls(name, part) if name and not Path(text).expanduser().exists() else cls(text, None)

    def __str__(self) -> str:
        return self.name if self.part is None else f"{self.name}#{self.part}"

    @property
    def path(self) -> Path:
        """The file or folder, whether it exists or not."""
        return Path(self.name).expanduser()


@dataclass(frozen=True)
class ReadingOptions(Options):
    """Labels, groups and scale of the tiles.

    docs/data.md explains them with examples.
    """

    groups: str = option(
        STORED,
        "Whose tiles they are: `stored` (the `groups` of an npz, else none), `none`, a pattern over file names "
        "(re:(?P<patient>p\\d+)_), `tcga` (barcodes), a table or two with a comma (path,group,site or PATIENT,FILENAME; csv or "
        "xlsx), or `auto`: clusters of like tiles, which are not patients.",
    )
    labels: str = option(
        STORED,
        "The class of each tile: `stored` (in the npz, or by class folders), a pattern over file names (re:label_(\\d)), or "
        "column:NAME of the tables of `groups`.",
    )
    classes: str = option(NONE, "A yaml that renames (old: new), merges (new: [a, b]) or leaves out (old: null) classes.")
    exclude: str = option(NONE, "A text file of tiles to leave out, a name or an index on each line; # begins a comment.")
    microns_per_pixel: float = option(
        0.0,
        "Width of a pixel of the stored tiles in micrometres (0.5 is 20x); travels with the model. 0: as the npz says, or not "
        "given.",
        at_least=0,
    )


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """Tiles."""

    data: str = option(
        DEMO,
        "Tiles to learn from: an .npz file (data, labels), a MedMNIST .npz (pathmnist.npz#val names a split; default train), "
        "a folder with one sub-folder per class (folder#nested: and more below), features that were made before (HDF5, zarr, "
        "npz; docs/features.md), several of these with commas, or `demo`: synthetic tiles, not tissue.",
        # Tiles may have moved when a run is resumed; their fingerprint decides whether they are the same.
        changes_result=False,
    )
    test_data: str = option(
        NONE,
        "Tiles that are scored after every epoch and never selected on, as `data`; `none` for none.",
        changes_result=False,
    )
    allow_leak: str = option(
        "none",
        "Why test tiles may be among the tiles to learn from, in words; `none`: copies and near-duplicates are refused.",
        changes_result=False,
    )
    test_groups: str = option(STORED, "As `groups`, of the test tiles; for intervals.", changes_result=False)
    reading: ReadingOptions

    @property
    def test_reading(self) -> ReadingOptions:
        """How the test tiles are read: with the same labels and classes, and groups and scale of their own."""
        return replace(self.reading, groups=self.test_groups, exclude=NONE, microns_per_pixel=0.0)


@dataclass(frozen=True)
class ScaleOptions(Options):
    """Scale."""

    rescale: bool = option(
        False,
        "Where tiles show more tissue than those that the model has learnt from, by their microns per pixel: take the middle "
        "of each, as large as the model's. Without it they are refused.",
    )


def _split_by() -> Any:
    return option(
        AUTO,
        "What stays on one side of a split: `auto` is the highest level of which there are enough for every class to be in "
        "each part; `tile` parts even the tiles of one patient.",
        choices=(AUTO, *LEVELS, REGION, TILE),
    )


@dataclass(frozen=True)
class HoldOutOptions(Options):
    """Validation split."""

    val_fraction: float = option(0.2, "Share of the tiles that is held out for validation.", above=0, below=1)
    split_by: str = _split_by()


@dataclass(frozen=True)
class FoldOptions(Options):
    """Folds."""

    folds: int | str = option(
        5,
        "Number of folds, each tile being validated on exactly once; `site` or `patient`: each of them is a fold.",
        at_least=2,
        words=(SITE, PATIENT),
    )
    split_by: str = _split_by()

    def __post_init__(self) -> None:
        """Raise `OptionError` for a level beside the one that makes the folds too."""
        super().__post_init__()
        if isinstance(self.folds, str) and self.split_by not in {AUTO, self.folds}:
            raise OptionError(f"folds={self.folds} makes each {self.folds} a fold; leave split_by={self.split_by} out")


def given_tiles(help: str) -> Any:  # noqa: A002 - the word that click uses too
    """Declare an option for tiles that must be given: nobody means the demo's drawings where a model is judged."""
    missing = "data is missing: name the tiles with --data, an npz file or a folder (`demo` for drawings)"
    return option("", help, missing=missing)
