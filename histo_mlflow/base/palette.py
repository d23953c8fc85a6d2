"""Colours in which classes are told apart, in every picture and viewer; knows no class.

Six of Okabe and Ito's, without black, which hides what it lies on, and yellow, in which no line is seen on white; and three
darker ones. All nine, the grey of what a model leaves open and white are at least 16 apart (CIE 1976 colour difference) for
normal sight, protanopia, deuteranopia and tritanopia, simulated after Machado, Oliveira and Fernandes (2009).
"""

from collections.abc import Sequence

OF_CLASSES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#6C4824", "#56B4E9", "#E69F00", "#332288", "#882255")
NOT_SURE = "#C8C8C8"

_WHITE = 255


def class_colours(n_classes: int) -> tuple[str, ...]:
    """Return a colour ``#RRGGBB`` for each class; after nine classes the same come again, each time halfway nearer to white."""
    return tuple(_lightened(OF_CLASSES[k % len(OF_CLASSES)], k // len(OF_CLASSES)) for k in range(n_classes))


def channels(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue from 0 to 255 of a colour ``#RRGGBB``."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def in_hex(colour: Sequence[int]) -> str:
    """Return ``#RRGGBB`` of red, green and blue from 0 to 255."""
    return "#" + bytes(colour).hex().upper()


def _lightened(colour: str, times: int) -> str:
    return in_hex([_WHITE - (_WHITE - channel) // 2**times for channel in channels(colour)])
