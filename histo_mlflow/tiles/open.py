"""One door for every form of tiles: what the options `data` and `test_data` may name."""

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from histo_mlflow.base.escaping import visible
from histo_mlflow.errors import OptionError, RequestError, SourceNotFoundError
from histo_mlflow.tiles import demo, folder, npz, stored_features
from histo_mlflow.tiles.asked import LabelNames, Wishes
from histo_mlflow.tiles.image_files import is_slide
from histo_mlflow.tiles.joining import join_sets
from histo_mlflow.tiles.options import Address, ReadingOptions
from histo_mlflow.tiles.tile_set import TileSet

_AS_STORED = ReadingOptions()


class Source(Protocol):
    """A module that reads one form of tiles."""

    def takes(self, address: Address) -> bool:
        """Return whether there is something of this form under the address, without opening it."""

    def read(self, address: Address, image_size: int) -> TileSet:
        """Return the tiles; `image_size` is that of `open_tiles`."""


# The first that takes an address reads it.
_SOURCES: tuple[Source, ...] = (
    demo,
    stored_features,
    folder,
    npz,  # takes every other file, and says what is wrong with it
)


def open_tiles(source: str | Path, *, image_size: int = 0, reading: ReadingOptions = _AS_STORED) -> TileSet:
    """Return the tiles that `source` names.

    Args:
        source: A path to an npz file or a folder, with ``#split`` behind a MedMNIST file or ``#nested`` behind a folder; to a
            file of features or a folder of such files (`stored_features.read`); ``demo``, or ``demo#SEED`` for another draw; or
            several of these with commas, which become one set.
        image_size: Edge length in pixels to which a folder of mixed sizes is brought; 0 if sizes must agree.
        reading: Labels, classes, groups, scale, and what is left out.

    Raises:
        SourceNotFoundError: There is nothing under that name.
        TileFormatError: What is there can't be read as tiles.
        RequestError: What `reading` asks does not go with these tiles.
    """
    addresses = split_sources(str(source))
    wishes = Wishes(reading, tuple(address.name for address in addresses))
    sets = [_open_one(address, image_size, wishes.find_labels) for address in addresses]
    tiles = wishes.apply(sets[0] if len(sets) == 1 else join_sets(sets))
    return replace(tiles, source=visible(tiles.source), notes=tuple(map(visible, tiles.notes)))


def check_source(source: str) -> None:
    """Raise what `open_tiles` would if there is nothing under that name, without opening it."""
    for address in split_sources(source):
        _find_source(address)


def split_sources(source: str) -> list[Address]:
    """Return the addresses that stand in `source` with commas between them; what exists under the whole name is one."""
    whole = Address.of(source)
    is_one = "," not in source or whole.path.exists()
    return [whole] if is_one else [Address.of(part.strip()) for part in source.split(",")]


def _open_one(address: Address, image_size: int, find_labels: LabelNames | None) -> TileSet:
    source = _find_source(address)
    if find_labels is None:
        return source.read(address, image_size)
    if source is not folder:
        raise OptionError(f"labels: {str(address)!r} is no folder, and its labels are stored with its tiles; leave labels out")
    return folder.read_labelled(address, image_size, find_labels)


def _find_source(address: Address) -> Source:
    for source in _SOURCES:
        if address.name and source.takes(address):
            return source
    if not address.name or not address.path.exists():
        raise SourceNotFoundError(
            f"{str(address)!r} does not exist (looked in {Path.cwd()}); give the path of an npz file or a folder, or `demo`"
        )
    if is_slide(address.path):
        raise RequestError(f"{str(address)!r} is a whole slide, not tiles; cut it into tiles first, for instance in QuPath")
    # Reading a pipe would wait for ever.
    raise RequestError(f"{str(address)!r} is neither a file nor a folder; give the path of an npz file or a folder")
