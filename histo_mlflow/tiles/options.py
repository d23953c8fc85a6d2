"""What can be asked of tiles: where they are, how they are split; opens nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histo_mlflow.options import Options, option

DEMO = "demo"


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
class DataOptions(Options):
    """Tiles."""

    data: str = option(
        DEMO,
        "Tiles to learn from: an .npz file (data, labels), a MedMNIST .npz (pathmnist.npz#val names a split; default train), "
        "a folder with one sub-folder per class (folder#nested: and more below), features that were made before (HDF5, zarr, "
        "npz; docs/features.md), or `demo`: synthetic tiles, not tissue.",
        # Tiles may have moved when a run is resumed; their fingerprint decides whether they are the same.
        changes_result=False,
    )
    test_data: str = option(
        "none",
        "Tiles that are scored after every epoch and never selected on, as `data`; `none` for none.",
        changes_result=False,
    )
    microns_per_pixel: float = option(
        0.5, "Width of a pixel of the stored tiles in micrometres (0.5 is 20x); travels with the model.", above=0
    )


@dataclass(frozen=True)
class HoldOutOptions(Options):
    """Validation split."""

    val_fraction: float = option(0.2, "Share of the tiles that is held out for validation.", above=0, below=1)


@dataclass(frozen=True)
class FoldOptions(Options):
    """Folds."""

    folds: int = option(5, "Number of folds; each tile is validated on exactly once.", at_least=2)


def given_tiles(help: str) -> Any:  # noqa: A002 - the word that click uses too
    """Declare an option for tiles that must be given: nobody means the demo's drawings where a model is judged."""
    missing = "data is missing: name the tiles with --data, an npz file or a folder (`demo` for drawings)"
    return option("", help, missing=missing)
