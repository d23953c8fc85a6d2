"""What counts as an encoded tile, and how one becomes RGB; converts only where nothing is lost."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

# A tile is small; what unpacks to more than this is a slide or a decompression bomb.
MAX_TILE_PIXELS = 4096 * 4096

_MIN_TILE_PX = 2
_TIFF_BITS_PER_SAMPLE = 258
FORMATS = ("PNG", "JPEG", "TIFF")
# What Pillow raises for damaged files, and for a tag of another kind than TIFF says.
_DAMAGE = (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError, Image.DecompressionBombWarning)


class ImageError(ValueError):
    """The bytes are not a tile; the message says why and fits behind the name of what holds them."""


def check_form(width: int, height: int) -> None:
    """Raise `ImageError` unless an image of so many pixels is square, and more than one of them."""
    if width != height:
        raise ImageError(f"has {width} x {height} px and must be square")
    if width < _MIN_TILE_PX:
        raise ImageError(f"has {width} x {height} px and must have at least {_MIN_TILE_PX} x {_MIN_TILE_PX}")


def read_size(file: BinaryIO | bytes) -> tuple[int, int]:
    """Return ``(width, height)`` in pixels from the header alone; raises as `read_rgb` does."""
    with _opened(file) as image:
        return image.size


def read_rgb(file: BinaryIO | bytes) -> NDArray[np.uint8]:
    """Return the image as ``(size, size, 3)`` uint8 RGB.

    A palette of opaque colours and an alpha channel that is 255 everywhere are converted: nothing is lost. Grey, CMYK and
    truly transparent images are refused, because a stained tile is none of these; so is more than 8 bits per channel, of which
    Pillow keeps the upper 8: 12-bit values in 16 bits would come out nearly black.

    Raises:
        ImageError: The bytes can't be decoded, hold an image that is too large, not square, of one pixel or not RGB.
    """
    with _opened(file) as image:
        image.load()
        return np.asarray(_to_rgb(image), dtype=np.uint8)


@contextmanager
def _opened(file: BinaryIO | bytes) -> Iterator[Image.Image]:
    """Open an image of a tile's size and depth; what Pillow says against it while it is read is an `ImageError` too."""
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS) as image:
            check_form(image.width, image.height)
            if image.width * image.height > MAX_TILE_PIXELS:
                raise ImageError(f"has {image.width} x {image.height} px, too many for a tile")
            if (bits := _bits_per_channel(image)) > 8:
                raise ImageError(
                    f"has {bits} bits per channel; convert it to 8-bit RGB, scaled by the largest value of its camera"
                )
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"is not an image that can be read ({', '.join(FORMATS)})") from None
    except _DAMAGE as error:
        raise ImageError(f"can't be decoded ({str(error)[:200]})") from None


def _bits_per_channel(image: Image.Image) -> int:
    if image.mode.startswith(("I", "F")):
        return 8  # grey, and refused as such
    if isinstance(image, TiffImageFile):
        return max(map(int, image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (8,))))
    # A PNG's raw mode, for instance RGB;16B, is all that Pillow tells of its depth.
    return 16 if any("16" in str(tile[3]) for tile in getattr(image, "tile", ())) else 8


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in {"P", "RGBA", "PA"}:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() == (255, 255):
            return rgba.convert("RGB")
        raise ImageError(f"is transparent in places (mode {image.mode}); 8-bit RGB is needed")
    raise ImageError(f"is not a colour image (mode {image.mode}); 8-bit RGB is needed")
