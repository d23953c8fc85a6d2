"""What a user writes to name tiles: a path or a name, and perhaps ``#`` and which part of what is there."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Address:
    """The two halves of what was written.

    Attributes:
        name: What stands before the ``#``: mostly a path.
        part: What stands behind it, or None.
    """

    name: str
    part: str | None

    @classmethod
    def of(cls, text: str) -> "Address":
        """Return the address that `text` means; a ``#`` that is in the name of an existing file or folder is part of it."""
        name, _, part = text.rpartition("#")
        return cls(name, part) if name and not Path(text).expanduser().exists() else cls(text, None)

    def __str__(self) -> str:
        return self.name if self.part is None else f"{self.name}#{self.part}"

    @property
    def path(self) -> Path:
        """The file or folder, whether it exists or not."""
        return Path(self.name).expanduser()
