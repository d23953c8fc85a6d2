"""One image file to one uint8 RGB array; converts only where nothing is lost; knows nothing of labels."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from histo_mlflow.errors import TileFormatError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})

# A tile is small; a file that unpacks to more than this is a slide or a decompression bomb.
MAX_TILE_PIXELS = 4096 * 4096


def list_images(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, sorted by name; hidden files are passed over."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def image_size_px(path: Path) -> tuple[int, int]:
    """Return ``(width, height)`` in pixels from the header alone; raises as `decode_image` does."""
    with _opened(path) as image:
        return image.size


def decode_image(path: Path) -> NDArray[np.uint8]:
    """Return the image as ``(height, width, 3)`` uint8 RGB.

    A palette of opaque colours and an alpha channel that is 255 everywhere are converted, for nothing is lost. Grey, 16-bit,
    CMYK and truly transparent images are refused, for a stained tile is none of these.

    Raises:
        TileFormatError: The file can't be decoded, is too large or is not RGB.
    """
    with _opened(path) as image:
        image.load()
        return np.asarray(_to_rgb(image, path), dtype=np.uint8)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_TILE_PIXELS:
                raise TileFormatError(f"{path} has {image.width} x {image.height} px: that is no tile; cut it first")
            yield image
    except TileFormatError:
        raise
    except UnidentifiedImageError:
        raise TileFormatError(f"{path} is not an image that can be read; mend or remove it") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise TileFormatError(f"{path} can't be decoded ({error}); mend or remove it") from None


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in {"P", "RGBA", "PA"}:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() == (255, 255):
            return rgba.convert("RGB")
        raise TileFormatError(f"{path} is transparent in places (mode {image.mode}); flatten it to RGB first")
    raise TileFormatError(f"{path} is not a colour image (mode {image.mode}); 8-bit RGB is needed: remove or convert it")


def resize_image(image: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Return `image` as ``(size_px, size_px, 3)``, bilinear with antialiasing."""
    resized = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8)
