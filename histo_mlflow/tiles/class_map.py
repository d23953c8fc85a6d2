"""Classes by other names: renamed, merged or left out as a yaml says, and the nine in one order whatever order a file has."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from histo_mlflow.base.plain_values import read_yaml_mapping, reason_of, shorten
from histo_mlflow.errors import OptionError, SourceNotFoundError
from histo_mlflow.tiles.fingerprint import fingerprint_of
from histo_mlflow.tiles.joining import select
from histo_mlflow.tiles.tile_set import COLORECTAL_CLASSES, TileSet, order_classes, with_class_order

# The order of the labels of its models trained on NCT-CRC-HE-100K (tiatoolbox/models/architecture, "kather100k").
_TIATOOLBOX = ("BACK", "NORM", "DEB", "TUM", "ADI", "MUC", "MUS", "STR", "LYM")


def read_class_map(text: str, classes: tuple[str, ...]) -> dict[str, str | None]:
    """Return the new name of each class that the yaml at `text` names, None for classes to be left out.

    It holds ``old: new``, ``new: [old, old]`` or ``old: null``.

    Raises:
        SourceNotFoundError: There is no such file.
        OptionError: It is not such a yaml, names classes that are not there, or one class twice.
    """
    file = Path(text).expanduser()
    if not file.is_file():
        raise SourceNotFoundError(f"classes={text}: no such file; give a yaml with old: new, new: [old, old] or old: null")
    try:
        content = read_yaml_mapping(file)
    except (ValueError, OSError) as error:
        raise OptionError(f"classes={text} is not a yaml with names of classes ({reason_of(error)})") from None
    pairs = [(str(old), new) for name, value in content.items() for old, new in _pairs(name, value, text)]
    if strangers := [old for old, _ in pairs if old not in classes]:
        raise OptionError(f"classes={text}: there is no class {shorten(strangers[0])}; the classes are {' '.join(classes)}")
    if len(dict(pairs)) < len(pairs):
        raise OptionError(f"classes={text}: names a class twice; give each one new name")
    return dict(pairs)


def _pairs(name: object, value: object, text: str) -> list[tuple[object, str | None]]:
    """Return old and new name of each class that an entry of the yaml means."""
    names = [name, *value] if isinstance(value, list) else [name, "" if value is None else value]
    if unfit := [each for each in names if not isinstance(each, (str, int, float)) or isinstance(each, bool)]:
        raise OptionError(
            f"classes={text}: {shorten(unfit[0])} is not the name of a class; put names such as yes, no, on, off in quotes"
        )
    if isinstance(value, list):
        return [(old, str(name)) for old in value]
    return [(name, None if value is None else str(value))]


def rename_classes(tiles: TileSet, new_names: Mapping[str, str | None], *, where: str) -> TileSet:
    """Return the set with classes by their new names; those without one keep theirs, and tiles of None are left out.

    Raises:
        OptionError: Nothing is left.
    """
    names = [new_names.get(old, old) for old in tiles.classes]
    kept = [name for name in names if name is not None]
    if not kept:
        raise OptionError(f"{where} leaves no class")
    classes = order_classes(list(dict.fromkeys(kept)), where=where)
    position = np.array([-1 if name is None else classes.index(name) for name in names])
    labels = position[tiles.labels]
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        raise OptionError(f"{where} leaves no tile")
    renamed = replace(tiles, labels=np.maximum(labels, 0), classes=classes)
    if len(rows) < len(tiles):
        return select(renamed, rows)
    return replace(renamed, fingerprint=fingerprint_of(tiles.images, labels))


def in_usual_order(tiles: TileSet) -> tuple[TileSet, str | None]:
    """Return the set with the nine tissue classes in their usual order, and what was done if a file has another."""
    if tiles.classes == COLORECTAL_CLASSES or set(tiles.classes) != set(COLORECTAL_CLASSES):
        return tiles, None
    whose = "TIAToolbox's order" if tiles.classes == _TIATOOLBOX else "another order"
    note = f"{tiles.source} has the nine classes in {whose} ({' '.join(tiles.classes)}); they are taken by name"
    mapped = with_class_order(tiles, COLORECTAL_CLASSES)
    return replace(mapped, fingerprint=fingerprint_of(mapped.images, mapped.labels)), note
