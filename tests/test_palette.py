"""Colours of classes are told apart by everybody."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.palette import NOT_SURE, OF_CLASSES, channels, class_colours, in_hex

# Machado, Oliveira and Fernandes 2009, full severity, on linear RGB.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])


def _lab(colour: str, sight: NDArray[np.float64]) -> NDArray[np.float64]:
    share = np.array(channels(colour)) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    ratio = TO_XYZ @ np.clip(sight @ linear, 0, 1) / WHITE
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_no_two_look_alike_to_anybody() -> None:
    for sight in SIGHTS.values():
        seen = [_lab(colour, sight) for colour in (*OF_CLASSES, NOT_SURE, "#FFFFFF")]
        assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 16


def test_more_than_nine_classes_get_lighter_ones() -> None:
    assert class_colours(9) == OF_CLASSES
    many = class_colours(27)
    assert len(set(many)) == 27
    assert all(sum(channels(later)) > sum(channels(first)) for first, later in zip(many[:9], many[9:18], strict=True))
    assert in_hex(channels("#0072B2")) == "#0072B2"
