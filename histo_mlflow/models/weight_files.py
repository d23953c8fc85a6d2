"""Files of published weights: where they lie here, and how they are fetched; knows nothing of what is in them."""

import os
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import torch

from histo_mlflow.base.digests import sha256_of
from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.errors import TileFormatError, WeightsUnavailableError
from histo_mlflow.models.licence import Licence

_DIGITS_IN_NAME = re.compile(r"-([a-f0-9]{8,64})\.[a-z]+$")


@dataclass(frozen=True)
class WeightFile(ABC):
    """A file of weights that somebody has published.

    Attributes:
        words: What they are.
        licence: Under which they were published.
    """

    words: str
    licence: Licence

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the file was published."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it is looked for here, in words that a person can follow."""

    @abstractmethod
    def find(self) -> Path | None:
        """Return where it lies here, or None."""

    @abstractmethod
    def download(self) -> Path:
        """Fetch it and return where it lies; raises `OSError`, `RuntimeError` or `ValueError` where that can't be done."""

    def fetch(self) -> Path:
        """Return where it lies, downloaded if it was not here.

        Raises:
            WeightsUnavailableError: It is not here and can't be fetched.
        """
        if (found := self.find()) is not None:
            return found
        try:
            return self.download()
        except (OSError, RuntimeError, ValueError) as error:
            reason = reason_of(error)
        raise WeightsUnavailableError(
            f"can't fetch weights from {self.url} ({reason}; licence: {self.licence.words}); put that file at {self.place}, "
            "give one as weights=FILE, or start without it: weights=none"
        )


@dataclass(frozen=True)
class FileAtUrl(WeightFile):
    """A file at an address, kept in torch's folder for such files (``TORCH_HOME``).

    Attributes:
        address: Its name may end in the first digits of its SHA-256.
        mirror: Environment variable that names another address of the same file, for those behind a firewall.
    """

    address: str
    mirror: str = field(default="", kw_only=True)

    @property
    def url(self) -> str:
        """The address, or that of the mirror."""
        return os.environ.get(self.mirror, "") or self.address

    @property
    def place(self) -> str:
        """Its path in torch's folder."""
        return str(Path(torch.hub.get_dir()) / "checkpoints" / self.url.rsplit("/", 1)[-1])

    def find(self) -> Path | None:
        """Return that path if there is a file."""
        return Path(self.place) if Path(self.place).is_file() else None

    def download(self) -> Path:
        """Fetch it; of a name that holds digits of its SHA-256 these are checked."""
        target = Path(self.place)
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(self.url, str(target), _digits_in(target))
        return target


def checked_sha256(file: Path) -> str:
    """Return the SHA-256 of a file; raises `TileFormatError` where its name ends in first digits of another one."""
    found = sha256_of(file)
    if (wanted := _digits_in(file)) and not found.startswith(wanted):
        raise TileFormatError(f"{file} is not what its name says: its SHA-256 is {found}; delete it and fetch it again")
    return found


def _digits_in(file: Path) -> str | None:
    match = _DIGITS_IN_NAME.search(file.name)
    return match[1] if match else None
