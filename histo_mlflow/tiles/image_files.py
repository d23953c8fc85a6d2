"""One image file to one uint8 RGB array, by the rules that a served model has too; knows nothing of labels."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.errors import TileFormatError
from histo_mlflow.served_model.decoding import ImageError, read_rgb, read_size

T = TypeVar("T")

_TILE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
_OTHER_IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".webp", ".jp2", ".j2k", ".jxl", ".heic", ".avif", ".ppm", ".npy"})
_SLIDE_SUFFIXES = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".czi", ".bif", ".vms", ".dcm", ".isyntax", ".vsi", ".qptiff"})

# Thumbnails and waste of file servers and archives, which hold copies of tiles.
_FOREIGN_FOLDERS = frozenset(
    {"@eadir", "#recycle", "@recycle", "$recycle.bin", "__macosx", "lost+found", "#snapshot", "~snapshot"}
)


def is_tile(file: Path) -> bool:
    """Return whether a file has the name of an image that is read as a tile."""
    return file.suffix.lower() in _TILE_SUFFIXES


def is_slide(path: Path) -> bool:
    """Return whether a file has the name of a whole slide."""
    return path.suffix.lower() in _SLIDE_SUFFIXES and path.is_file()


def is_picture(file: Path) -> bool:
    """Return whether a file has the name of an image of any kind, a tile or not."""
    return file.suffix.lower() in _TILE_SUFFIXES | _OTHER_IMAGE_SUFFIXES | _SLIDE_SUFFIXES


def list_files(folder: Path) -> list[Path]:
    """Return the files directly in `folder` that are not hidden, sorted by name; pipes and devices are none."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())


def sub_folders(folder: Path) -> list[Path]:
    """Return the sub-folders, linked ones too, sorted by name; hidden ones and those of file servers are passed over."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in _FOREIGN_FOLDERS and path.is_dir()
    )


def walk_folders(folder: Path) -> Iterator[Path]:
    """Yield `folder` and all folders below it, depth first, each real one once: a link may point upwards."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        stat = current.stat()
        if (stat.st_dev, stat.st_ino) not in seen:
            seen.add((stat.st_dev, stat.st_ino))
            yield current
            waiting += reversed(sub_folders(current))


def edge_px(path: Path) -> int | TileFormatError:
    """Return the edge length in pixels from the header alone, or what is wrong with the file, as `decode_image` does."""
    return _read(path, lambda file: _edge_of(*read_size(file)))


def decode_image(path: Path) -> NDArray[np.uint8] | TileFormatError:
    """Return the image as ``(size, size, 3)`` uint8 RGB; what is converted and what not, `read_rgb` says.

    What can't be decoded, is too large, not RGB or not square is returned as an error: it does not stop the others.
    """

    def read(file: BinaryIO) -> NDArray[np.uint8]:
        image = read_rgb(file)
        _edge_of(image.shape[1], image.shape[0])
        return image

    return _read(path, read)


def _edge_of(width: int, height: int) -> int:
    if width != height:
        raise ImageError(f"has {width} x {height} px and must be square")
    return width


def _read(path: Path, read: Callable[[BinaryIO], T]) -> T | TileFormatError:
    try:
        with path.open("rb") as file:
            return read(file)
    except (ImageError, OSError) as error:
        return TileFormatError(f"{path} {error}; cut, repair or remove it")
