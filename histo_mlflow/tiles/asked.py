"""What a user asks of a set beyond where it lies: labels, classes, groups, scale, and what is to be left out."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import read_small, reason_of, shorten
from histo_mlflow.errors import OptionError, SourceNotFoundError
from histo_mlflow.options import stated
from histo_mlflow.tiles.class_map import in_usual_order, read_class_map, rename_classes
from histo_mlflow.tiles.joining import select
from histo_mlflow.tiles.likeness import cluster_by_colour
from histo_mlflow.tiles.named import PREFIX, TCGA_PATTERN, NamePattern, Names
from histo_mlflow.tiles.options import AUTO, STORED, ReadingOptions
from histo_mlflow.tiles.tables import Table, read_tables
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tiles.units import CLUSTER

_COLUMN = "column:"
_TCGA = "tcga"
_MAX_LIST_BYTES = 2**28

LabelNames = Callable[[Names, Path], list[str | None]]
"""From the names of the files below a folder, and that folder, to the class of each; None for those without."""


@dataclass(frozen=True)
class Wishes:
    """How the tiles of one or several sources are to be read.

    Attributes:
        options: As asked.
        sources: Where the tiles lie, as they were named.
    """

    options: ReadingOptions
    sources: tuple[str, ...]

    @cached_property
    def table(self) -> Table | None:
        """The table that `groups` names."""
        text = stated(self.options.groups)
        is_word = text is None or text in {STORED, AUTO, _TCGA} or text.startswith(PREFIX)
        return None if is_word or text is None else read_tables(text)

    @property
    def find_labels(self) -> LabelNames | None:
        """What gives the classes of the files of a folder; None where they are stored with the tiles.

        Raises:
            OptionError: The option `labels` is none of what it may be.
        """
        labels = self.options.labels
        if labels == STORED:
            return None
        if labels.startswith(PREFIX):
            pattern = NamePattern.of("labels", labels)
            return lambda names, folder: list(pattern.find_labels(names, str(folder)))
        if not labels.startswith(_COLUMN):
            raise OptionError(
                f"labels={labels}: give {STORED}, a pattern (re:label_(\\d)) or column:NAME of the table of groups"
            )
        if (table := self.table) is None:
            raise OptionError(f"labels={labels}: name the table that has this column by groups=TABLE")
        column = labels.removeprefix(_COLUMN)
        return lambda names, folder: table.labels(column, table.find_rows(names, np.strings.add(f"{folder}/", names)))

    def apply(self, tiles: TileSet) -> TileSet:
        """Return the set as asked for, as it was read; what was done stands in its notes.

        Raises:
            RequestError: What is asked does not go with these tiles.
        """
        asked, all_names = self.options, tiles.names
        tiles, *notes = in_usual_order(tiles)
        if (excluded := stated(asked.exclude)) is not None:
            rows = np.setdiff1d(np.arange(len(tiles)), read_excluded(excluded, all_names))
            notes.append(f"{len(tiles) - len(rows)} of {len(tiles)} tiles are left out by {excluded}")
            if not len(rows):
                raise OptionError(f"exclude={excluded} leaves no tile")
            tiles = select(tiles, rows) if len(rows) < len(tiles) else tiles
        if (file := stated(asked.classes)) is not None:
            tiles, note = self._renamed(tiles, file)
            notes.append(note)
        tiles = self._grouped(tiles, all_names)
        if asked.microns_per_pixel:
            if tiles.microns_per_pixel not in {None, asked.microns_per_pixel}:
                notes.append(f"{tiles.source} states {tiles.microns_per_pixel:g} microns per pixel; the option goes before it")
            tiles = replace(tiles, microns_per_pixel=asked.microns_per_pixel)
        return replace(tiles, notes=(*tiles.notes, *(note for note in notes if note is not None)))

    def _renamed(self, tiles: TileSet, file: str) -> tuple[TileSet, str]:
        new_names = read_class_map(file, tiles.classes)
        renamed = rename_classes(tiles, new_names, where=f"classes={file}")
        words = ", ".join(f"{old} {'left out' if new is None else f'is {new}'}" for old, new in new_names.items())
        n_out = len(tiles) - len(renamed)
        return renamed, f"classes: {words}" + (f"; {n_out} tiles are left out" if n_out else "")

    def _grouped(self, tiles: TileSet, all_names: Names) -> TileSet:
        asked = self.options.groups
        if asked == STORED:
            return tiles
        if stated(asked) is None:
            return tiles.with_levels({})
        if asked == AUTO:
            return tiles.with_levels({CLUSTER: cluster_by_colour(tiles)})
        if (table := self.table) is not None:
            labels = self.options.labels
            column = labels.removeprefix(_COLUMN) if labels.startswith(_COLUMN) else None
            table.check_known(table.find_rows(all_names, self._paths(all_names)), column)
            return tiles.with_levels(table.levels(table.find_rows(tiles.names, self._paths(tiles.names)), tiles.names))
        return tiles.with_levels(_levels_in_names(asked, tiles.names, tiles.source))

    def _paths(self, names: Names) -> Names:
        """Return where the files lie that have these names; of several sources the name begins with the source itself."""
        return names if len(self.sources) > 1 else np.strings.add(f"{self.sources[0]}{os.sep}", names)


def levels_of_slides(groups: str, names: Names) -> Mapping[str, Names]:
    """Return the ids by level ``(n_slides,)`` of slides of these names, as the value of `groups` says; of `stored`, nothing.

    Raises:
        RequestError: A slide is not in the table, or its name not as the pattern.
    """
    if groups == AUTO:
        raise OptionError(f"groups={AUTO}: clusters are of tiles; give a pattern or a table of slides")
    if stated(groups) is None or groups == STORED:
        return {}
    if (table := Wishes(ReadingOptions(groups=groups), ()).table) is not None:
        return table.levels(table.find_rows(names, names), names)
    return _levels_in_names(groups, names, "the slides")


def _levels_in_names(asked: str, names: Names, source: str) -> Mapping[str, Names]:
    pattern = NamePattern.of("groups", TCGA_PATTERN if asked == _TCGA else asked)
    if asked == _TCGA:
        pattern = replace(pattern, text=_TCGA)
    return pattern.find_levels(names, source)


def read_excluded(text: str, names: Names) -> NDArray[np.int64]:
    """Return the positions of the tiles that the file at `text` names, by name or by position, one a line.

    What stands behind a ``#`` that begins a line or follows a space is a comment, unless a tile is called so.

    Raises:
        SourceNotFoundError: There is no such file.
        OptionError: It can't be read, or names what is no tile.
    """
    file = Path(text).expanduser()
    if not file.is_file():
        raise SourceNotFoundError(
            f"exclude={text}: no such file; give a text file with the name or index of a tile on each line"
        )
    try:
        lines = read_small(file, max_bytes=_MAX_LIST_BYTES).splitlines()
    except (ValueError, OSError) as error:
        raise OptionError(f"exclude={text} can't be read as a list of tiles ({reason_of(error)})") from None
    by_name = {name: row for row, name in enumerate(names.tolist())}
    found = [_find(line, by_name) for line in lines]
    unknown = [line for line, row in zip(lines, found, strict=True) if row is None and _without_comment(line)]
    if unknown:
        raise OptionError(
            f"exclude={text}: {len(unknown)} line(s) name no tile of the set, for instance {shorten(unknown[0])}; tiles "
            f"have names such as {shorten(str(names[0]))}"
        )
    return np.unique(np.array([row for row in found if row is not None], dtype=np.int64))


def _find(line: str, by_name: dict[str, int]) -> int | None:
    for name in (line.strip(), _without_comment(line)):
        if name in by_name:
            return by_name[name]
        if name.isdecimal() and int(name) < len(by_name):
            return int(name)
    return None


def _without_comment(line: str) -> str:
    return "" if line.lstrip().startswith("#") else line.partition(" #")[0].strip()
