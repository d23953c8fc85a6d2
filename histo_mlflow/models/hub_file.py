"""Files of the Hugging Face hub, in the cache that its own tools use (``HF_HOME``), where they are found offline too."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError

from histo_mlflow.models.weight_files import WeightFile

WEIGHT_NAMES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class HubFile(WeightFile):
    """Weights in a repository of the hub.

    Attributes:
        repository: ORG/NAME, or ORG/NAME@REVISION.
        names: Under which the file may be there, best first.
    """

    repository: str
    names: Sequence[str] = WEIGHT_NAMES

    @property
    def url(self) -> str:
        """Address of the first of the names."""
        name, revision = split_revision(self.repository)
        return f"{constants.ENDPOINT}/{name}/resolve/{revision or 'main'}/{self.names[0]}"

    @property
    def place(self) -> str:
        """The cache, as its own tool fills it."""
        name, revision = split_revision(self.repository)
        at = f" --revision {revision}" if revision else ""
        return f"{constants.HF_HUB_CACHE} (hf download {name} {self.names[0]}{at})"

    def find(self) -> Path | None:
        """Return the first of the names that the cache holds."""
        return next((found for name in self.names if (found := find_cached(self.repository, name)) is not None), None)

    def download(self) -> Path:
        """Fetch the first of the names that the repository holds."""
        for name in self.names[:-1]:
            try:
                return download(self.repository, name)
            except RemoteEntryNotFoundError:
                continue
        return download(self.repository, self.names[-1])


def find_cached(repository: str, file_name: str) -> Path | None:
    """Return where the cache holds a file of a repository, or None."""
    name, revision = split_revision(repository)
    found = try_to_load_from_cache(name, file_name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def download(repository: str, file_name: str) -> Path:
    """Fetch a file of a repository into the cache.

    Raises:
        RemoteEntryNotFoundError: There is no such file; an `OSError` too.
        OSError: It can't be fetched; for a repository with a gate the message says what to do about it.
        ValueError: `repository` is not a name.
    """
    name, revision = split_revision(repository)
    try:
        return Path(hf_hub_download(name, file_name, revision=revision))
    except GatedRepoError:
        raise PermissionError(
            f"its owners ask you to accept their terms first: do so at {constants.ENDPOINT}/{name}, then `hf auth login`"
        ) from None


def split_revision(repository: str) -> tuple[str, str | None]:
    """Return name and revision of ORG/NAME@REVISION."""
    name, _, revision = repository.partition("@")
    return name, revision or None
