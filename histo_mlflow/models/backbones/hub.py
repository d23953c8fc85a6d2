"""``hub:ORG/NAME`` (or ``hub:ORG/NAME@REVISION``, or ``hub:FOLDER``): networks of timm's with weights and facts of others.

What timm writes to the Hugging Face hub is a ``config.json`` with the architecture and what its weights have learnt from, and a
file of weights. Both are looked for in the hub's cache first; a folder that holds them does as well.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from histo_mlflow.base.plain_values import read_small, reason_of, shorten
from histo_mlflow.errors import OptionError, WeightsUnavailableError
from histo_mlflow.models.backbone import Backbone
from histo_mlflow.models.backbones.timm import from_timm
from histo_mlflow.models.hub_file import WEIGHT_NAMES, HubFile, download, find_cached
from histo_mlflow.models.licence import Licence, licence_of
from histo_mlflow.models.weight_files import WeightFile

_CONFIG, _CARD = "config.json", "README.md"
_MAX_CARD_BYTES = 2**20
_LICENCE = re.compile(r"^license:\s*(\S+)\s*$", re.MULTILINE)


def find(network: str) -> Backbone:
    """Return the network of a repository of the hub, or of a folder with the same files.

    Raises:
        OptionError: timm can't build it.
        WeightsUnavailableError: Its configuration is not here and can't be fetched.
    """
    if not network:
        raise OptionError("backbone=hub: must be hub:ORG/NAME or hub:FOLDER")
    folder = Path(network) if (Path(network) / _CONFIG).is_file() else _fetch_config(network).parent
    return from_timm(f"hub:{network}", f"local-dir:{folder}", partial(_published, network, folder))


@dataclass(frozen=True)
class FileInFolder(WeightFile):
    """Weights in a folder of the user's.

    Attributes:
        folder: Holds one of the names that the hub uses.
    """

    folder: Path

    @property
    def url(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def place(self) -> str:
        """Its path under the name that is preferred."""
        return str(self.folder / WEIGHT_NAMES[0])

    def find(self) -> Path | None:
        """Return the first of the names that is there."""
        return next((self.folder / name for name in WEIGHT_NAMES if (self.folder / name).is_file()), None)

    def download(self) -> Path:
        """Raise `FileNotFoundError`: what is not in the folder is nowhere else."""
        raise FileNotFoundError(f"it holds neither {' nor '.join(WEIGHT_NAMES)}")


def _fetch_config(repository: str) -> Path:
    try:
        if (found := find_cached(repository, _CONFIG)) is not None:
            return found
        fetched = download(repository, _CONFIG)
    except (OSError, ValueError) as error:
        raise WeightsUnavailableError(
            f"backbone=hub:{shorten(repository)}: can't fetch its {_CONFIG} ({reason_of(error)}); where the hub can't be "
            f"reached, copy {_CONFIG} and {WEIGHT_NAMES[0]} of that repository to a folder and give backbone=hub:FOLDER"
        ) from None
    with suppress(OSError, ValueError):  # only for the licence in it
        download(repository, _CARD)
    return fetched


def _published(network: str, folder: Path, settings: Mapping[str, Any]) -> WeightFile:
    licence = _licence_of(folder, settings)
    if Path(network) == folder:
        return FileInFolder(f"{network}", licence, folder)
    return HubFile(f"hub:{network}, revision {folder.name}", licence, network)


def _licence_of(folder: Path, settings: Mapping[str, Any]) -> Licence:
    """Return the licence that the configuration states, or else the card in the same folder."""
    stated = settings.get("license")
    with suppress(OSError, ValueError):
        match = _LICENCE.search(read_small(folder / _CARD, max_bytes=_MAX_CARD_BYTES))
        stated = match[1] if match else stated
    return licence_of(stated)
