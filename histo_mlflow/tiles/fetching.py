"""Files that lie elsewhere, brought here whole: what breaks off goes on where it stopped; knows no tiles."""

import hashlib
import json
import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.base.progress import Bar
from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.errors import DownloadError

_BLOCK_BYTES = 2**20
_ARRIVING_BYTES = 2**16  # of a block at which the connection breaks nothing is kept
_MOST_FAILURES = 4  # in a row, without a byte between
_PAUSE_SECONDS = 1.0  # after the first failure, then twice as long each time
_TIMEOUT_SECONDS = 30, 60  # to connect, and between two bytes
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_OK, _PARTIAL, _PAST_THE_END, _TOO_MANY, _SERVER_ERROR = 200, 206, 416, 429, 500


class BrokenOffError(Exception):
    """A server could not be reached, or the connection broke: worth another try."""


@dataclass(frozen=True)
class Answer:
    """What is found where a file lies.

    Attributes:
        start: Position of the first byte of `blocks` in the file.
        version: Changes with the content of the file; empty if nothing is known of that.
        n_bytes: Size of the whole file, if it is known.
        blocks: The bytes from `start` on; raises `BrokenOffError`.
    """

    start: int
    version: str
    n_bytes: int | None
    blocks: Iterator[bytes]


class RemoteFile(ABC):
    """A file that lies elsewhere."""

    @property
    @abstractmethod
    def shown(self) -> str:
        """Its address, for people, without secrets."""

    @abstractmethod
    def open(self, start: int, version: str) -> AbstractContextManager[Answer]:
        """Open it at `start` if it still is of this version, else at its beginning.

        Raises:
            DownloadError: It is not there, or is refused.
            BrokenOffError: The server can't be reached.
        """


@dataclass(frozen=True)
class HttpFile(RemoteFile):
    """A file at an ``http://`` or ``https://`` address."""

    url: str

    @property
    def shown(self) -> str:
        """The address without secrets."""
        return hide_secrets(self.url)

    @contextmanager
    def open(self, start: int, version: str) -> Iterator[Answer]:
        """Ask for the rest of the file, on condition that it has not changed (RFC 9110, sections 13.1.5 and 14.2)."""
        import requests

        # Compressed on the way, positions in the answer would not be positions in the file.
        headers = {"User-Agent": "histo-mlflow", "Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-"} | ({"If-Range": version} if version else {})
        try:
            response = requests.get(self.url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise BrokenOffError(_reason_of(error)) from None
        except requests.RequestException as error:
            raise DownloadError(f"{self.shown} can't be fetched ({_reason_of(error)})") from None
        with response:
            answer = self._understand(response, start, version)
            if answer is not None:
                yield answer
                return
        with self.open(0, "") as whole:
            yield whole

    def _understand(self, response: Any, start: int, version: str) -> Answer | None:
        """Return what an answer means; None if what is here does not go on with it."""
        code, headers = response.status_code, response.headers
        if code >= _SERVER_ERROR or code == _TOO_MANY:
            raise BrokenOffError(f"HTTP {code} {response.reason}")
        if self.url.startswith("https:") and response.url.startswith("http:"):
            raise DownloadError(f"{self.shown} leads to an address without encryption ({hide_secrets(response.url)})")
        if code == _PAST_THE_END and start:
            return None
        if code not in {_OK, _PARTIAL}:
            raise DownloadError(f"{self.shown} can't be fetched (HTTP {code} {response.reason})")
        found, is_plain = _version_of(headers), headers.get("Content-Encoding", "identity") == "identity"
        if code == _PARTIAL:
            match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
            if not match or int(match[1]) != start or (version and found != version):
                return None
            return Answer(start, found, None if match[2] == "*" else int(match[2]), _blocks_of(response))
        length = headers.get("Content-Length", "")
        return Answer(0, found, int(length) if length.isdecimal() and is_plain else None, _blocks_of(response))


def _version_of(headers: Any) -> str:
    """Return what `If-Range` takes: a strong entity tag, or the time of the last change."""
    tag = headers.get("ETag", "")
    return str(headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag)


def _blocks_of(response: Any) -> Iterator[bytes]:
    import requests

    try:
        yield from response.iter_content(_ARRIVING_BYTES)
    except requests.RequestException as error:
        raise BrokenOffError(_reason_of(error)) from None


def _reason_of(error: Exception) -> str:
    """Return why a request failed, without the names of objects that requests puts around it."""
    inner = getattr(error.args[0], "reason", error) if error.args else error
    return hide_secrets(reason_of(inner)).rpartition("): ")[2]


def fetch(remote: RemoteFile, target: Path, *, md5: str = "") -> None:
    """Bring a file here, whole or not at all; what an earlier call has left beside `target` is not fetched again.

    Args:
        remote: Where it lies.
        target: Where it will lie.
        md5: The sum that is published of it, if one is known: a check against damage, not against malice.

    Raises:
        DownloadError: It is not there, can't be reached, is not what its sum says, or the disk has no room for it.
        OSError: It can't be written.
    """
    draft, failures = _Draft(target, is_summed=bool(md5)), 0
    while True:
        before = draft.n_bytes
        try:
            draft.go_on(remote)
            break
        except BrokenOffError as error:
            failures = 1 if draft.n_bytes > before else failures + 1
            if failures == _MOST_FAILURES:
                raise DownloadError(f"can't reach {remote.shown} ({error}){draft.describe()}") from None
        time.sleep(_PAUSE_SECONDS * 2 ** (failures - 1))
    draft.finish(remote, md5)


class _Draft:
    """The beginning of a file that is being fetched, and beside it what it is the beginning of."""

    def __init__(self, target: Path, *, is_summed: bool) -> None:
        self._target = target
        self._part = target.with_name(f"{target.name}.part")
        self._facts = target.with_name(f"{target.name}.part.json")
        self._is_summed = is_summed
        self._sum, self._n_summed = hashlib.md5(usedforsecurity=False), 0

    @property
    def n_bytes(self) -> int:
        """How much of it is here."""
        return self._part.stat().st_size if self._part.exists() else 0

    def describe(self) -> str:
        """Return what is here, in words that go on with a sentence; nothing if nothing is."""
        return f"; {self.n_bytes / 1e6:.1f} MB are here, and the same command goes on from there" if self.n_bytes else ""

    def go_on(self, remote: RemoteFile) -> None:
        """Fetch what is missing; raises `BrokenOffError` if that is not all that comes."""
        version, n_bytes = self._read_facts()
        # Without a version only the sum can tell whether two parts are of one file.
        start = self.n_bytes if version or (self._is_summed and n_bytes is not None) else 0
        if start and start == n_bytes:
            return
        with remote.open(start, version) as answer:
            if answer.n_bytes is not None:
                self._check_room(answer.n_bytes - answer.start)
            self._facts.write_text(json.dumps({"version": answer.version, "n_bytes": answer.n_bytes}))
            with self._part.open("r+b" if self._part.exists() else "w+b") as file:
                file.truncate(answer.start)
                file.seek(answer.start)
                self._write(file, answer)
        if answer.n_bytes is not None and self.n_bytes < answer.n_bytes:
            raise BrokenOffError(f"the connection ended after {self.n_bytes} of {answer.n_bytes} bytes")

    def finish(self, remote: RemoteFile, md5: str) -> None:
        """Compare the sum and give the file its name."""
        if md5:
            self._sum_up(self.n_bytes)
            if (found := self._sum.hexdigest()) != md5:
                n_bytes = self.n_bytes
                self._part.unlink()
                self._facts.unlink(missing_ok=True)
                raise DownloadError(
                    f"{remote.shown} is not what was published: MD5 {found} ({n_bytes} bytes), expected {md5}; "
                    "what has come was thrown away, try again"
                )
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        self._part.replace(self._target)
        self._facts.unlink(missing_ok=True)

    def _read_facts(self) -> tuple[str, int | None]:
        try:
            facts = json.loads(self._facts.read_text())
            return str(facts["version"]), None if facts["n_bytes"] is None else int(facts["n_bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            return "", None

    def _check_room(self, n_bytes: int) -> None:
        if (free := shutil.disk_usage(self._part.parent).free) < n_bytes:
            raise DownloadError(
                f"{self._part.parent} has {free / 1e9:.2f} GB of room, and {n_bytes / 1e9:.2f} GB are to come; "
                "make room, or take a folder on another disk"
            )

    def _write(self, file: Any, answer: Answer) -> None:
        if self._is_summed:
            self._sum_up(answer.start)
        with Bar[None](
            total=answer.n_bytes,
            initial=answer.start,
            unit="B",
            unit_scale=True,
            desc=f"fetch {self._target.name}",
        ) as bar:
            for block in answer.blocks:
                file.write(block)
                if self._is_summed:
                    self._sum.update(block)
                    self._n_summed += len(block)
                bar.update(len(block))

    def _sum_up(self, n_bytes: int) -> None:
        """Bring the sum to the first `n_bytes`, of which an earlier process may have fetched some."""
        if self._n_summed > n_bytes:
            self._sum, self._n_summed = hashlib.md5(usedforsecurity=False), 0
        if self._n_summed < n_bytes:
            with self._part.open("rb") as file:
                file.seek(self._n_summed)
                while self._n_summed < n_bytes:
                    block = file.read(min(_BLOCK_BYTES, n_bytes - self._n_summed))
                    self._sum.update(block)
                    self._n_summed += len(block)
