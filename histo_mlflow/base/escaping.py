"""Names from files and data, made harmless for where they are shown: a terminal, a page, Markdown; knows none of their uses."""

import re

# Terminals obey control characters, readers are misled by changes of direction, and no encoding takes lone surrogates.
_DIRECTIONS = "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_UNFIT = re.compile(f"[\x00-\x1f\x7f-\x9f{_DIRECTIONS}\ufeff\ud800-\udfff]")
_UNFIT_IN_LINES = re.compile(f"(?!\n){_UNFIT.pattern}")
# A backslash is enough for what Markdown itself reads; HTML, mentions and formulas are what its readers add to it.
_MARKDOWN = re.compile(r"[\\`*_\[\]~|!#]")
_ADDED_TO_MARKDOWN = re.compile(r"[&<>$@]|:(?=//)|(?<=www)\.")


def visible(text: str) -> str:
    """Return `text` as one line, control characters, changes of direction and lone surrogates spelt as in Python."""
    return _UNFIT.sub(_spell, text)


def visible_lines(text: str) -> str:
    """Return `text`, whose line breaks are ours, with everything else spelt that `visible` spells."""
    return _UNFIT_IN_LINES.sub(_spell, text)


def markdown(text: str) -> str:
    """Return `text` so that Markdown shows it as it is, in a table too, and takes no part of it for markup, a link or HTML."""
    escaped = _MARKDOWN.sub(r"\\\g<0>", visible(text))
    return _ADDED_TO_MARKDOWN.sub(lambda match: f"&#{ord(match[0])};", escaped)


def _spell(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
