"""What a model said of each tile as a table: the columns of WSInfer's, and what this model says beyond them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import reason_of, shorten
from histo_mlflow.base.whole_file import written_whole
from histo_mlflow.errors import SourceNotFoundError, TileFormatError
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.scored import ScoredSlide

if TYPE_CHECKING:  # a table is written without pandas
    import pandas as pd

_PLACE = ("minx", "miny", "width", "height")
_PROBABILITY = "prob_"
_LABEL, _ABSTAIN, _SPREAD = "label", "abstain", "spread"
_SUM_TOLERANCE = 1e-3
_BLOCK_ROWS = 10_000
_SAID = {"true": True, "false": False}


@dataclass(frozen=True)
class TileTable:
    """The tiles of a table.

    Attributes:
        places: Where they lie.
        classes: Names, in the order of the probabilities.
        probabilities: ``(n_tiles, n_classes)`` float32.
        abstained: ``(n_tiles,)`` bool, or None if the table does not say.
        spread: ``(n_tiles,)`` float32, or None if the table does not say.
    """

    places: Places
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    abstained: NDArray[np.bool_] | None
    spread: NDArray[np.float32] | None


def write_tile_table(scored: ScoredSlide, path: Path) -> None:
    """Write one row per tile, in their order: place in pixels of level 0, probabilities, class; whole or not at all.

    Probabilities have nine digits, from which the same float32 are read again.
    """
    header = [*_PLACE, *(_PROBABILITY + name for name in scored.classes), _LABEL]
    header += [_ABSTAIN] * (scored.abstained is not None) + [_SPREAD] * (scored.spread is not None)
    with written_whole(path) as draft, draft.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for first in range(0, len(scored), _BLOCK_ROWS):
            writer.writerows(_rows(scored, slice(first, first + _BLOCK_ROWS)))


def _rows(scored: ScoredSlide, block: slice) -> list[list[object]]:
    edge, probabilities = scored.places.edge_px, scored.probabilities[block]
    lefts, tops = scored.places.left[block].tolist(), scored.places.top[block].tolist()
    rows: list[list[object]] = [
        [left, top, edge, edge, *(f"{value:.9g}" for value in of_tile), scored.classes[k]]
        for left, top, of_tile, k in zip(
            lefts, tops, probabilities.tolist(), probabilities.argmax(axis=1).tolist(), strict=True
        )
    ]
    if scored.abstained is not None:
        for row, abstains in zip(rows, scored.abstained[block].tolist(), strict=True):
            row.append(str(abstains).lower())
    if scored.spread is not None:
        for row, spread in zip(rows, scored.spread[block].tolist(), strict=True):
            row.append(f"{spread:.9g}")
    return rows


def read_tile_table(path: Path, *, stride_px: float | None = None) -> TileTable:
    """Return the tiles of a table that `write_tile_table` or WSInfer has written.

    Args:
        path: The table.
        stride_px: From one tile to the next in pixels of level 0, which a table does not say; None for tiles without overlap.

    Raises:
        SourceNotFoundError: There is no such file.
        TileFormatError: It is not such a table, or holds values that no such table can hold.
    """
    import pandas as pd

    if not path.is_file():
        raise SourceNotFoundError(f"there is no table of tiles {path}; check the path")
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            header = next(csv.reader(file), [])
        classes = _classes_of(header, path)
        rows = pd.read_csv(
            path, header=0, names=header, dtype=str, keep_default_na=False, encoding="utf-8", encoding_errors="surrogateescape"
        )
    except (OSError, UnicodeError, ValueError, csv.Error) as error:
        if isinstance(error, TileFormatError):
            raise
        raise TileFormatError(f"{path} is not a table of tiles ({reason_of(error)}); write it again") from None
    if not isinstance(rows.index, pd.RangeIndex):  # pandas takes what is too much for an index
        raise TileFormatError(f"{path} has a row with more values than columns; write it again")
    probabilities = np.stack([_numbers(rows[_PROBABILITY + name], path) for name in classes], axis=1)
    _check(probabilities, rows.get(_LABEL), classes, path)
    abstained = None if _ABSTAIN not in rows else rows[_ABSTAIN].str.lower().map(_SAID)
    if abstained is not None and (bad := np.flatnonzero(abstained.isna())).size:
        raise TileFormatError(f"{_line(path, bad[0])}: {_ABSTAIN} is neither true nor false")
    return TileTable(
        places=_places(rows, path, stride_px),
        classes=classes,
        probabilities=probabilities.astype(np.float32),
        abstained=None if abstained is None else abstained.to_numpy(bool),
        spread=None if _SPREAD not in rows else _numbers(rows[_SPREAD], path).astype(np.float32),
    )


def _classes_of(header: list[str], path: Path) -> tuple[str, ...]:
    if tuple(header[:4]) != _PLACE:
        raise TileFormatError(f"{path} does not begin with the columns {', '.join(_PLACE)}; give a table of tiles")
    if repeated := {name for name in header if header.count(name) > 1}:
        raise TileFormatError(f"{path} has the column {shorten(min(repeated))!r} twice; name each once")
    classes = tuple(name.removeprefix(_PROBABILITY) for name in header if name.startswith(_PROBABILITY))
    if not classes:
        raise TileFormatError(f"{path} has no column {_PROBABILITY}CLASS; give a table of tiles with probabilities")
    return classes


def _numbers(column: pd.Series[str], path: Path) -> NDArray[np.float64]:
    import pandas as pd

    numbers: NDArray[np.float64] = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    if (bad := np.flatnonzero(~np.isfinite(numbers))).size:
        raise TileFormatError(f"{_line(path, bad[0])}: {column.name} is {shorten(column.iloc[bad[0]])!r}, not a number")
    return numbers


def _check(probabilities: NDArray[np.float64], labels: pd.Series[str] | None, classes: tuple[str, ...], path: Path) -> None:
    outside = (probabilities < 0).any(axis=1) | (np.abs(probabilities.sum(axis=1) - 1) > _SUM_TOLERANCE)
    if (bad := np.flatnonzero(outside)).size:
        raise TileFormatError(f"{_line(path, bad[0])}: the probabilities are not of 0 to 1 with the sum 1")
    if labels is None:
        return
    called = np.array(classes, dtype=object)[probabilities.argmax(axis=1)]
    if (bad := np.flatnonzero(labels.to_numpy(object) != called)).size:
        raise TileFormatError(f"{_line(path, bad[0])}: {_LABEL} is not the class of the highest probability")


def _places(rows: pd.DataFrame, path: Path, stride_px: float | None) -> Places:
    left, top, width, height = (_numbers(rows[name], path) for name in _PLACE)
    edge = width[0] if len(width) else 1.0
    odd = (width != edge) | (height != edge) | (left % 1 != 0) | (top % 1 != 0) | (width < 1) | (width % 1 != 0)
    if (bad := np.flatnonzero(odd)).size:
        raise TileFormatError(f"{_line(path, bad[0])}: the tile is no square of whole pixels as large as the first")
    return Places(left.astype(np.int64), top.astype(np.int64), int(edge), float(stride_px or edge))


def _line(path: Path, row: int) -> str:
    return f"{path}, line {row + 2}"
