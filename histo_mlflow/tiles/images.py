"""One image file to one uint8 RGB array, by the rules that a served model has too; knows nothing of labels."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from histo_mlflow.errors import TileFormatError
from histo_mlflow.served_model.images import ImageError, read_rgb, read_size

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})


def list_images(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, sorted by name; hidden files are passed over."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def image_size_px(path: Path) -> tuple[int, int]:
    """Return ``(width, height)`` in pixels from the header alone; raises as `decode_image` does."""
    with _opened(path) as file:
        return read_size(file)


def decode_image(path: Path) -> NDArray[np.uint8]:
    """Return the image as ``(height, width, 3)`` uint8 RGB; what is converted and what not, `read_rgb` says.

    Raises:
        TileFormatError: The file can't be decoded, is too large or is not RGB.
    """
    with _opened(path) as file:
        return read_rgb(file)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except (ImageError, OSError) as error:
        raise TileFormatError(f"{path} {error}; mend or remove it") from None


def resize_image(image: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Return `image` as ``(size_px, size_px, 3)``, bilinear with antialiasing."""
    resized = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8)
