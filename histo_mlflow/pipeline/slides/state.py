"""What was done with each slide of an output folder: by it the next command knows what is left to do."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from histo_mlflow.base.digests import sha256_of
from histo_mlflow.base.plain_values import build_plain, parse_json, read_small
from histo_mlflow.base.whole_file import written_whole
from histo_mlflow.slides.listing import files_of

_MAX_BYTES = 2**24


@dataclass(frozen=True)
class SlideIdentity:
    """By what a slide is known.

    Attributes:
        size_bytes: Of its files together.
        modified_ns: When the youngest of them was changed.
        sha256: Of all that is in them; of several in the order of their paths.
    """

    size_bytes: int
    modified_ns: int
    sha256: str


@dataclass(frozen=True)
class SlideState:
    """Written last of all that is written of a slide: what it names is there, and whole.

    Attributes:
        slide: Its file.
        size_bytes: As in `SlideIdentity`, like the two that follow.
        modified_ns: See there.
        sha256: See there.
        model: Its address.
        model_sha256: Of its weights and facts.
        options: Those that change results.
        outputs: Names of the files and folders that were written.
        drift: How it compares with what the model was tried on, by names of metrics; empty where that can't be judged.
        tissue_sha256: Of the tissue that was last found and written; a file that has another one is a person's.
        unreadable: Left and top, in pixels of level 0, of the tiles that could not be decoded and were left out.
    """

    slide: str
    size_bytes: int
    modified_ns: int
    sha256: str
    model: str
    model_sha256: str
    options: dict[str, Any]
    outputs: tuple[str, ...]
    drift: dict[str, float]
    tissue_sha256: str = ""
    unreadable: tuple[tuple[int, int], ...] = ()

    def fits(self, identity: SlideIdentity, model_sha256: str, options: Mapping[str, Any], folder: Path) -> bool:
        """Return whether it is of this slide, model and options, and all that it names is there."""
        same = (self.sha256, self.model_sha256, self.options) == (identity.sha256, model_sha256, dict(options))
        return same and all((folder / name).exists() for name in self.outputs)


def identify(path: Path, earlier: "SlideIdentity | SlideState | None") -> SlideIdentity:
    """Return by what a slide is known; it is not read where size and time are as they were `earlier`.

    Raises:
        OSError: It can't be read.
    """
    files = files_of(path)
    stats = [file.stat() for file in files]
    size_bytes, modified_ns = sum(each.st_size for each in stats), max((each.st_mtime_ns for each in stats), default=0)
    if earlier is not None and (earlier.size_bytes, earlier.modified_ns) == (size_bytes, modified_ns):
        return SlideIdentity(size_bytes, modified_ns, earlier.sha256)
    digests = [sha256_of(file) for file in files]
    if len(digests) == 1:
        return SlideIdentity(size_bytes, modified_ns, digests[0])
    return SlideIdentity(size_bytes, modified_ns, hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest())


def read_state(file: Path) -> SlideState | None:
    """Return the state that a file holds, or None if there is none that can be read: the slide is then done again."""
    try:
        return build_plain(SlideState, parse_json(read_small(file, max_bytes=_MAX_BYTES)))
    except (OSError, ValueError):
        return None


def write_state(state: SlideState, file: Path) -> None:
    """Write a state, whole or not at all."""
    with written_whole(file) as draft:
        draft.write_text(json.dumps(asdict(state), indent=1) + "\n", encoding="utf-8")
