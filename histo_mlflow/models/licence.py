"""Under which licence weights were published, and whether it lets them be passed on; an aid to reading, not legal advice."""

from dataclasses import dataclass

# Names as the Hugging Face hub and timm write them. All of these allow copies, some with conditions that the words then name.
_PASSABLE = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
}  # fmt: skip


@dataclass(frozen=True)
class Licence:
    """A licence.

    Attributes:
        words: Its name, and conditions where these are known.
        may_be_passed_on: Whether a model that holds the weights may be handed to others.
    """

    words: str
    may_be_passed_on: bool


NOBODYS = Licence("", may_be_passed_on=True)
"""Of weights that nobody has published: random ones."""


def licence_of(stated: str | None) -> Licence:
    """Return the licence of a stated name; what is not known to allow copies does not."""
    if not stated:
        return Licence("not stated", may_be_passed_on=False)
    return Licence(stated, may_be_passed_on=stated.lower() in _PASSABLE)
