"""One door for every form of tiles: what the options `data` and `test_data` may name."""

from dataclasses import replace
from pathlib import Path

from histo_mlflow.base.escaping import visible
from histo_mlflow.errors import OptionError, RequestError, SourceNotFoundError
from histo_mlflow.tiles.demo import draw_demo
from histo_mlflow.tiles.folder import NESTED, read_folder
from histo_mlflow.tiles.images import SLIDE_SUFFIXES
from histo_mlflow.tiles.npz import read_npz
from histo_mlflow.tiles.options import DEMO
from histo_mlflow.tiles.tile_set import TileSet


def open_tiles(source: str, *, image_size: int = 0) -> TileSet:
    """Return the tiles that `source` names.

    Args:
        source: A path to an npz file or a folder, with ``#split`` behind a MedMNIST file or ``#nested`` behind a folder;
            ``demo``, or ``demo#SEED`` for another draw.
        image_size: Edge length in pixels to which a folder of mixed sizes is brought; 0 if sizes must agree.

    Raises:
        SourceNotFoundError: There is nothing under that name.
        TileFormatError: What is there can't be read as tiles.
    """
    name, _, part = source.partition("#")
    if name == DEMO:
        return _draw_numbered_demo(part)
    path, split = split_source(source)
    tiles = read_folder(path, image_size, is_nested=split == NESTED) if path.is_dir() else read_npz(path, split)
    return replace(tiles, source=visible(tiles.source))


def check_source(source: str) -> None:
    """Raise what `open_tiles` would if there is nothing under that name, without opening it."""
    if source.partition("#")[0] != DEMO:
        split_source(source)


def split_source(source: str) -> tuple[Path, str | None]:
    """Return the existing path that `source` names and the split behind its ``#``; raises `SourceNotFoundError`."""
    name, _, part = source.rpartition("#")
    whole, before = Path(source).expanduser(), Path(name).expanduser()
    if source and whole.exists():
        if not (whole.is_file() or whole.is_dir()):  # reading a pipe would wait for ever
            raise RequestError(f"{source!r} is neither a file nor a folder; give the path of an npz file or a folder")
        if whole.suffix.lower() in SLIDE_SUFFIXES and whole.is_file():
            raise RequestError(f"{source!r} is a whole slide, not tiles; cut it into tiles first, for instance in QuPath")
        return whole, None
    if name and before.is_file():
        return before, part
    if name and before.is_dir():
        if part == NESTED:
            return before, part
        raise OptionError(f"{source!r}: {before} is a folder and has no splits; leave out '#{part}'")
    raise SourceNotFoundError(
        f"{source!r} does not exist (looked in {Path.cwd()}); give the path of an npz file or a folder, or `demo`"
    )


def _draw_numbered_demo(part: str) -> TileSet:
    if part and not part.isdecimal():
        raise OptionError(f"demo#{part}: the number of a draw is meant, for instance demo#1")
    return draw_demo(seed=int(part or 0))
