"""Whether the fonts of this machine have the letters of a text, and what is drawn where they have not; knows of no results.

Matplotlib's own font has no Chinese, Thai or Devanagari, and draws boxes for what it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from histo_mlflow.base.escaping import visible, visible_lines

if TYPE_CHECKING:  # matplotlib is imported where a picture begins: training need not wait for it
    from matplotlib.figure import Figure as Picture
    from matplotlib.font_manager import FontEntry

KEY_FILE = "classes.txt"

_NOTE = f"Classes are numbered: no font of the machine that drew this has their letters. Their names: report, {KEY_FILE}."
_DRAWS_BOXES = re.compile(r"(?i)last ?resort|bmp fallback")  # fonts with a box for every letter there is
_PLAIN_WEIGHTS = {400, "normal", "regular", "book"}
_LACKING = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class ClassLabels:
    """How classes are called in pictures.

    Attributes:
        shown: One label per class: its name, or the position of each where a letter of any name can't be drawn.
        key: Position and name of each class, empty where names are shown.
    """

    shown: tuple[str, ...]
    key: tuple[tuple[str, str], ...] = ()

    def explain(self, picture: Picture) -> Picture:
        """Say below the picture why its classes are numbered, if they are, and return it."""
        if self.key:
            picture.supxlabel(_NOTE, fontsize="x-small", color="#5d6875")
        return picture


def label_classes(classes: Sequence[str]) -> ClassLabels:
    """Return the labels of `classes` for pictures that are drawn on this machine."""
    names = tuple(visible(name) for name in classes)
    if not _fonts_for("".join(names))[1]:
        return ClassLabels(names)
    numbers = tuple(str(position) for position in range(len(names)))
    return ClassLabels(numbers, tuple(zip(numbers, names, strict=True)))


def write_key(folder: Path, classes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Write the key of `classes` to the folder of their pictures, if these number them, and return it."""
    key = label_classes(classes).key
    if key:
        (folder / KEY_FILE).write_text("".join(f"{number} = {name}\n" for number, name in key), encoding="utf-8")
    return key


def letter(picture: Picture) -> None:
    """Give each text of the picture fonts that have its letters, and take none for a formula, whatever its ``$`` say."""
    from matplotlib.text import Text

    for axes in picture.axes:  # labels of ticks get their text when they are asked for
        _ = axes.get_xticklabels(), axes.get_yticklabels()
    for text in picture.findobj(Text):
        assert isinstance(text, Text)
        families, lacking = _fonts_for(text.get_text())
        if families:
            text.set_fontfamily([*text.get_fontfamily(), *families])
        text.set_parse_math(False)
        text.set_text("".join(_LACKING if each in lacking else each for each in visible_lines(text.get_text())))


def _fonts_for(text: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the font families that `text` needs beside the usual one, and the characters that no installed font has."""
    from matplotlib import font_manager

    usual = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    missing = frozenset(each for each in visible(text) if not usual.get_char_index(ord(each)))
    return _families_with(missing, len(font_manager.fontManager.ttflist)) if missing else ((), missing)


@lru_cache(maxsize=1000)
def _families_with(letters: frozenset[str], _n_installed: int) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return few families that have as many of `letters` as can be had, and those that none has."""
    from matplotlib.font_manager import fontManager

    covered: dict[str, frozenset[str]] = {}
    for entry in sorted(fontManager.ttflist, key=_preference):
        if entry.name not in covered and not _DRAWS_BOXES.search(entry.name):
            covered[entry.name] = _letters_in(entry, letters)
    families: list[str] = []
    while letters and (best := max(covered, key=lambda name: len(covered[name] & letters), default="")):
        if not covered[best] & letters:
            break
        families.append(best)
        letters -= covered[best]
    return tuple(families), letters


def _preference(entry: FontEntry) -> tuple[bool, bool, str]:
    is_plain = entry.style == "normal" and entry.weight in _PLAIN_WEIGHTS
    return not is_plain, "sans" not in entry.name.lower(), entry.name


def _letters_in(entry: FontEntry, letters: frozenset[str]) -> frozenset[str]:
    """Return which of `letters` a font draws; pictures of letters, as of most emoji, can't be drawn."""
    from matplotlib.ft2font import FT2Font, LoadFlags

    try:
        font = FT2Font(entry.fname, face_index=entry.index)
        if not font.scalable:
            return frozenset()
        found = [(each, font.get_char_index(ord(each))) for each in letters]
        return frozenset(
            each for each, glyph in found if glyph and (each.isspace() or any(font.load_glyph(glyph, LoadFlags.NO_SCALE).bbox))
        )
    except (OSError, RuntimeError, ValueError):  # a damaged font is one font less
        return frozenset()
