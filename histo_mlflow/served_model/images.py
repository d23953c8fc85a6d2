"""What counts as an encoded tile, and how one becomes RGB; converts only where nothing is lost."""

import io
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

# A tile is small; what unpacks to more than this is a slide or a decompression bomb.
MAX_TILE_PIXELS = 4096 * 4096

FORMATS = ("PNG", "JPEG", "TIFF")


class ImageError(ValueError):
    """The bytes are no tile; the message says why and fits behind the name of what holds them."""


def read_size(file: BinaryIO | bytes) -> tuple[int, int]:
    """Return ``(width, height)`` in pixels from the header alone; raises as `read_rgb` does."""
    with _opened(file) as image:
        return image.size


def read_rgb(file: BinaryIO | bytes) -> NDArray[np.uint8]:
    """Return the image as ``(height, width, 3)`` uint8 RGB.

    A palette of opaque colours and an alpha channel that is 255 everywhere are converted, for nothing is lost. Grey, 16-bit,
    CMYK and truly transparent images are refused, for a stained tile is none of these.

    Raises:
        ImageError: The bytes can't be decoded, hold too large an image or one that is not RGB.
    """
    with _opened(file) as image:
        try:
            image.load()
            return np.asarray(_to_rgb(image), dtype=np.uint8)
        except (OSError, ValueError, SyntaxError) as error:
            raise _said(error) from None


def _opened(file: BinaryIO | bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError(f"is not an image that can be read ({', '.join(FORMATS)})") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _said(error) from None
    if image.width * image.height > MAX_TILE_PIXELS:
        raise ImageError(f"has {image.width} x {image.height} px, too many for a tile")
    return image


def _said(error: Exception) -> ImageError:
    return error if isinstance(error, ImageError) else ImageError(f"can't be decoded ({error})")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in {"P", "RGBA", "PA"}:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() == (255, 255):
            return rgba.convert("RGB")
        raise ImageError(f"is transparent in places (mode {image.mode}); 8-bit RGB is needed")
    raise ImageError(f"is not a colour image (mode {image.mode}); 8-bit RGB is needed")
