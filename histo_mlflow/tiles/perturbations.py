"""Changes that leave the tissue of a tile as it is, to test whether a model's prediction stays the same."""

import io
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

Tile = NDArray[np.uint8]

_PIL_HUES = 256  # a full turn of hue in PIL
_OPENCV_HUES = 180  # and in OpenCV, whose units the protocol uses


def jpeg(tile: Tile, quality: int) -> Tile:
    """Return the tile ``(size, size, 3)`` after JPEG compression."""
    with io.BytesIO() as buffer:
        Image.fromarray(tile).save(buffer, format="JPEG", quality=quality)
        return np.asarray(Image.open(buffer))


def hue(tile: Tile, shift: int) -> Tile:
    """Return the tile with its hue turned by `shift`, in OpenCV's units of 2 degrees."""
    in_hsv = np.array(Image.fromarray(tile).convert("HSV"))
    in_hsv[..., 0] = (in_hsv[..., 0].astype(np.int64) + round(shift * _PIL_HUES / _OPENCV_HUES)) % _PIL_HUES
    return np.asarray(Image.fromarray(in_hsv, mode="HSV").convert("RGB"))


def blur(tile: Tile, sigma: float) -> Tile:
    """Return the tile after a Gaussian blur with a standard deviation of `sigma` pixels."""
    return np.asarray(Image.fromarray(tile).filter(ImageFilter.GaussianBlur(sigma)))


def brightness(tile: Tile, factor: float) -> Tile:
    """Return the tile with every value multiplied."""
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(tile)).enhance(factor))


def symmetry(tile: Tile, turns: int, *, is_mirrored: bool) -> Tile:
    """Return the tile turned by quarter turns, mirrored before if asked."""
    return np.rot90(tile[:, ::-1] if is_mirrored else tile, turns)


PROTOCOL: Mapping[str, Mapping[str, Callable[[Tile], Tile]]] = {
    "JPEG": {f"quality {quality}": partial(jpeg, quality=quality) for quality in (80, 60, 40, 20)},
    "hue": {f"{shift:+d}": partial(hue, shift=shift) for shift in (-20, -10, 10, 20)},
    "blur": {f"sigma {sigma:g} px": partial(blur, sigma=sigma) for sigma in (1.0, 2.0)},
    "brightness": {f"x {factor:g}": partial(brightness, factor=factor) for factor in (0.8, 1.2)},
    "symmetry": {
        f"{'mirrored, ' if is_mirrored else ''}{90 * turns} degrees": partial(symmetry, turns=turns, is_mirrored=is_mirrored)
        for is_mirrored in (False, True)
        for turns in range(4)
        if turns or is_mirrored
    },
}
"""Kinds of change and their strengths, the same for every model. JPEG and hue are those of Ignatov and Malivenko 2024."""
