"""Tables of tiles, slides and patients that a user has: who is who, and of which class; reads csv and xlsx, knows no pixels."""

import os
import unicodedata
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import reason_of, shorten
from histo_mlflow.errors import OptionError, RequestError, SourceNotFoundError
from histo_mlflow.tiles.options import LEVELS, PATIENT, SLIDE
from histo_mlflow.tiles.tile_set import check_groups

if TYPE_CHECKING:
    import pandas as pd

PATH, FILENAME = "path", "filename"
"""Columns: of a table of tiles the file or index, of a table of slides the slide."""

_MAX_BYTES = 2**29  # unpacked; some kilobytes of xlsx can hold gigabytes
_SEPARATORS = (",", ";", "\t")

Names = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows that each say something of a tile, or of all tiles of a slide.

    Attributes:
        file: For people.
        rows: Texts in columns named in small letters; one of them is `path` or `filename`.
        folder: Where the file lies: paths may begin there.
    """

    file: str
    rows: "pd.DataFrame"
    folder: Path

    @property
    def is_of_tiles(self) -> bool:
        """Whether each row is of one tile."""
        return PATH in self.rows

    def find_rows(self, names: Names, paths: Names) -> NDArray[np.int64]:
        """Return the number of the row of each tile, ``(n_tiles,)``, -1 where there is none.

        Args:
            names: ``(n_tiles,)``, what tiles are called.
            paths: ``(n_tiles,)``, where their files lie, or what stands for that.
        """
        by_key = {key: row for row, key in enumerate(self.rows[PATH if self.is_of_tiles else FILENAME])}
        if not self.is_of_tiles:
            return np.array([_row_of_slide(_plain(name), by_key) for name in names.tolist()])
        here = Path.cwd()
        by_path = {_plain(os.path.normpath(here / self.folder / key)): row for key, row in by_key.items()}
        whole = [_plain(os.path.normpath(here / path)) for path in paths.tolist()]
        return np.array([by_key.get(_plain(n), by_path.get(path, -1)) for n, path in zip(names.tolist(), whole, strict=True)])

    def check_known(self, found: NDArray[np.int64], labels: str | None) -> None:
        """Raise `RequestError` if rows are of no tile; a table of slides may name others, and any table such without a class.

        Args:
            found: Rows of the tiles that are in the set.
            labels: The column of the classes, if the set has those of this table.
        """
        lost = np.setdiff1d(np.arange(len(self.rows)), found)
        if labels is not None:
            lost = lost[(self.rows[labels.lower()] != "").to_numpy()[lost]]
        if self.is_of_tiles and len(lost):
            raise RequestError(
                f"{self.file}: {len(lost)} of {len(self.rows)} rows name no tile of the set, for instance "
                f"{shorten(self.rows[PATH].iloc[lost[0]])}; paths begin at the folder of tiles or at the table"
            )

    def levels(self, found: NDArray[np.int64], names: Names) -> dict[str, Names]:
        """Return the ids of the tiles by level, from coarse to fine, with `found` from `find_rows`; each must have them."""
        if len(missing := np.flatnonzero(found < 0)):
            raise RequestError(
                f"{self.file} has no row for {len(missing)} of {len(names)} tiles, for instance "
                f"{shorten(str(names[missing[0]]))}; add them, or leave those tiles out (exclude)"
            )
        known = [level for level in LEVELS if level in self.rows]
        if not known:
            raise RequestError(f"{self.file} has no column {', '.join(LEVELS)}; its columns are {' '.join(self.rows)}")
        columns = {level: self.rows[level].to_numpy(dtype=np.str_) for level in known}
        return {level: check_groups(ids[found], where=f"{self.file}, column {level}") for level, ids in columns.items()}

    def labels(self, column: str, found: NDArray[np.int64]) -> list[str | None]:
        """Return the class of each tile as a column has it, or None; raises `OptionError` where there is no such column."""
        name = column.lower()
        if name not in self.rows:
            raise OptionError(f"labels=column:{column}: {self.file} has the columns {' '.join(self.rows)}; name one of them")
        texts = [*self.rows[name], ""]  # row -1
        return [texts[row] or None for row in found.tolist()]


def read_tables(text: str) -> Table:
    """Return the table that the value of `groups` names, or several with commas as one: rows of a patient are joined to it.

    Raises:
        SourceNotFoundError: There is no such file.
        OptionError: A file is not a table, has no column to go by, or has a row twice.
    """
    files = [Path(part.strip()).expanduser() for part in ([text] if Path(text).expanduser().is_file() else text.split(","))]
    if missing := [file for file in files if not file.is_file()]:
        raise SourceNotFoundError(
            f"groups: {str(missing[0])!r} is no file (looked in {Path.cwd()}), and no pattern (re:...) either"
        )
    tables = {file: read_rows(file, "groups") for file in files}
    bases = [file for file, rows in tables.items() if PATH in rows or FILENAME in rows]
    if len(bases) != 1 or len(tables) < len(files):
        raise OptionError(
            f"groups={text}: one table with a column path (of tiles) or FILENAME (of slides) is needed, and beside it tables "
            "with a column PATIENT"
        )
    base = tables.pop(bases[0])
    key = PATH if PATH in base else FILENAME
    base[key] = [_plain(value) if key == PATH else _stem(value) for value in base[key]]
    _check_once(base, key, bases[0])
    if key == FILENAME:
        base[SLIDE] = base[FILENAME]
    for file, rows in tables.items():
        if PATIENT not in rows or PATIENT not in base:
            raise OptionError(f"groups={text}: {file} and {bases[0]} need a column PATIENT each, by which they are joined")
        _check_once(rows, PATIENT, file)
        new = [PATIENT, *(column for column in rows if column not in base)]
        base = base.merge(rows[new], on=PATIENT, how="left").fillna("")
    return Table(text, base, bases[0].parent)


def read_rows(file: Path, asked: str) -> "pd.DataFrame":
    """Return the rows of a csv or xlsx as text without spaces around it, column names in small letters, without empty rows.

    Raises:
        SourceNotFoundError: There is no such file; `asked` is the option that names it.
        OptionError: It is not a table, or has a column twice.
    """
    import pandas as pd

    if not file.is_file():
        raise SourceNotFoundError(f"{asked}: {str(file)!r} is no file (looked in {Path.cwd()})")
    try:
        if file.suffix.lower() in {".xlsx", ".xlsm"}:
            _check_size(file, sum(member.file_size for member in zipfile.ZipFile(file).infolist()))
            rows = pd.read_excel(file, dtype=str, engine="openpyxl")
        else:
            _check_size(file, file.stat().st_size)
            with file.open(encoding="utf-8-sig") as opened:
                header = opened.readline(2**16)
            separator = max(_SEPARATORS, key=header.count)
            rows = pd.read_csv(file, dtype=str, sep=separator, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError, KeyError, TypeError, zipfile.BadZipFile) as error:  # UnicodeDecodeError, pandas' own
        raise OptionError(
            f"{file} can't be read as a table ({reason_of(error)}); save it as csv in UTF-8, or as xlsx"
        ) from None
    rows.columns = pd.Index([str(column).strip().lower() for column in rows.columns])
    if twice := [column for column, is_again in zip(rows.columns, rows.columns.duplicated(), strict=True) if is_again]:
        raise OptionError(f"{file} has the column {shorten(twice[0])} twice; rename one")
    rows = rows.fillna("").apply(lambda column: column.str.strip())
    return rows[(rows != "").any(axis=1)].reset_index(drop=True)


def _check_size(file: Path, n_bytes: int) -> None:
    if n_bytes > _MAX_BYTES:
        raise OptionError(f"{file} is too large for a table ({n_bytes} bytes, {_MAX_BYTES} at most)")


def _check_once(rows: "pd.DataFrame", column: str, file: Path) -> None:
    again = rows[column][rows[column].duplicated()]
    if len(again):
        raise OptionError(f"{file} names {shorten(again.iloc[0])} in more than one row; keep one of them")


def _plain(path: str) -> str:
    """Return a path as tiles are called: with ``/``, composed (a Mac writes names decomposed), without what means nothing."""
    return str(PurePosixPath(unicodedata.normalize("NFC", path.replace("\\", "/"))))


def _stem(name: str) -> str:
    """Return the name of a slide without the ending of its file; a barcode may have other dots."""
    stem, _, ending = _plain(name).rpartition(".")
    return stem if stem and ending.lower() in _SLIDE_ENDINGS else _plain(name)


_SLIDE_ENDINGS = frozenset(
    {"svs", "ndpi", "mrxs", "scn", "czi", "bif", "vms", "dcm", "tif", "tiff", "qptiff", "h5", "jpg", "png"}
)


def _row_of_slide(name: str, by_slide: dict[str, int]) -> int:
    """Return the row of the slide that is a folder of the tile, or with whose name, as a whole, the tile's own begins."""
    *folders, file = name.split("/")
    return next((by_slide[each] for each in (*reversed(folders), *_beginnings(file)) if each in by_slide), -1)


def _beginnings(file: str) -> Iterable[str]:
    yield from (file[:end] for end in range(len(file), 0, -1) if end == len(file) or not file[end].isalnum())
