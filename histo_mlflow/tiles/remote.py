"""Tiles at an address with ``://``, brought into the cache once: from web servers, and from stores that fsspec knows."""

import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from histo_mlflow.base.plain_values import reason_of, shorten
from histo_mlflow.base.progress import Bar
from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.errors import DownloadError, OptionError
from histo_mlflow.tiles.cache import About, cache_folder, cache_key, made_once, recall, remember
from histo_mlflow.tiles.fetching import Answer, BrokenOffError, HttpFile, RemoteFile, fetch
from histo_mlflow.tiles.options import Address

_REMOTE = re.compile(r"([a-z][a-z0-9+.-]*)://[^:]")  # `::` chains addresses, of files on this machine too
_ON_THE_WEB = frozenset({"http", "https"})
_HERE = frozenset({"file", "local"})
_BLOCK_BYTES = 2**22
_AT_ONCE = 8  # small files: each waits for its answer
_OF_VERSION = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created", "size")
_OF_CONTENT = ("size", "ETag", "etag", "md5Hash")
_WHAT = "tiles can't be fetched"

_log = logging.getLogger(__name__)


def is_remote(address: Address) -> bool:
    """Return whether it lies elsewhere."""
    return "://" in address.name


def check_remote(address: Address) -> None:
    """Raise `OptionError` if nothing here can read such an address; asks nobody."""
    match = _REMOTE.match(address.name)
    scheme = match[1] if match else ""
    if not match or scheme in _HERE or "::" in address.name:
        raise OptionError(f"{shown(address)} is no address that can be read; give s3://, gs:// or https://, or a path")
    if scheme in _ON_THE_WEB:
        return
    import fsspec

    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise OptionError(f"{shown(address)}: {reason_of(error)}; python -m pip install -e '.[remote]'") from None
    except ValueError:
        raise OptionError(f"{shown(address)}: {scheme}:// is not known; give s3://, gs:// or https://, or a path") from None


def shown(address: Address) -> str:
    """Return an address for people and for what is kept, without secrets."""
    return hide_secrets(str(address))


def brought_here(address: Address) -> Address:
    """Return where the file or folder lies in the cache, fetching it first if it is not there or has changed since.

    Where nobody can be asked whether it has changed, what was fetched last is taken, with a warning.

    Raises:
        OptionError: As `check_remote`.
        DownloadError: It is not there, can't be reached, or the disk has no room for it.
        CacheError: The cache can't be written.
    """
    check_remote(address)
    last = cache_key("last fetched", _without_query(address.name))
    try:
        path = _from_web(address) if _scheme(address) in _ON_THE_WEB else _from_store(address)
    except BrokenOffError as error:
        path = cache_folder() / str(recall(last).get("path", "none"))
        if not path.exists():
            raise DownloadError(f"can't reach {shown(address)} ({error}); fetch it by other means and give its path") from None
        _log.warning("can't reach %s (%s); what was fetched last is taken from the cache", shown(address), error)
    remember(last, {"path": path.relative_to(cache_folder()).as_posix()})
    return Address(str(path), address.part)


def _scheme(address: Address) -> str:
    return address.name.partition("://")[0]


def _without_query(url: str) -> str:
    """Return a URL without its query, where signatures and their dates stand, and without a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _from_web(address: Address) -> Path:
    remote = HttpFile(address.name)
    with remote.open(0, "") as answer:
        version, n_bytes = answer.version, answer.n_bytes
    if not version:
        _log.warning("%s does not say when it changes; `histo cache clear` has it fetched anew", shown(address))
    place = _without_query(address.name) if version else address.name
    name = Path(unquote(urlsplit(address.name).path)).name or "tiles"
    return _kept(address, cache_key("fetched", place, version, n_bytes), name, remote)


def _kept(address: Address, key: str, name: str, remote: RemoteFile) -> Path:
    about = About("fetched", shown(address))
    return made_once(key, name, lambda target: fetch(remote, target), what=_WHAT, resumes=True, about=about)


@dataclass(frozen=True)
class _StoredFile(RemoteFile):
    """A file in a store.

    Attributes:
        store: fsspec's.
        path: In it.
        shown_as: Its address without secrets.
    """

    store: Any
    path: str
    shown_as: str

    @property
    def shown(self) -> str:
        """The address without secrets."""
        return self.shown_as

    @contextmanager
    def open(self, start: int, version: str) -> Iterator[Answer]:
        """Open it; the store is asked first whether it is as it was."""
        info = self.info()
        found = _version_of([info])
        start = start if found == version else 0
        yield Answer(start, found, info.get("size"), self.blocks(start))

    def info(self) -> dict[str, Any]:
        """Return what the store says of it."""
        with _asking(self.shown):
            return dict(self.store.info(self.path))

    def blocks(self, start: int) -> Iterator[bytes]:
        """Yield its bytes from `start` on."""
        with _asking(self.shown), self.store.open(self.path, "rb") as file:
            file.seek(start)
            while block := file.read(_BLOCK_BYTES):
                yield block


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Turn whatever a store's library raises into one of two errors."""
    try:
        yield
    except FileNotFoundError:
        raise DownloadError(f"{what} does not exist") from None
    except PermissionError as error:
        raise DownloadError(f"{what} is refused ({hide_secrets(reason_of(error))}); see to its credentials") from None
    except Exception as error:  # each store has errors of its own, and few of them are an OSError
        if "Credentials" in type(error).__name__:
            raise DownloadError(f"{what}: {hide_secrets(reason_of(error))}; see to its credentials") from None
        raise BrokenOffError(hide_secrets(reason_of(error))) from None


def _version_of(infos: list[dict[str, Any]]) -> str:
    """Return what changes when one of some files does."""
    return cache_key(*((info["name"], *(info.get(fact) for fact in _OF_VERSION)) for info in infos))


def _from_store(address: Address) -> Path:
    import fsspec

    where = shown(address)
    with _asking(where):
        store, path = fsspec.url_to_fs(address.name)
        store.invalidate_cache()  # of listings, which may be older than the files
        is_folder = store.info(path)["type"] == "directory"
        infos = list(store.find(path, detail=True).values()) if is_folder else [store.info(path)]
    if not infos:
        raise DownloadError(f"{where} is an empty folder")
    key = cache_key("fetched", _scheme(address), path, _version_of(infos))
    name = PurePosixPath(path).name or "tiles"
    if not is_folder:
        return _kept(address, key, name, _StoredFile(store, path, where))
    files = [_Listed(_StoredFile(store, info["name"], where), _below(info["name"], path), info) for info in infos]
    about = About("fetched", where)
    return made_once(key, name, lambda target: _fetch_all(files, target), what=_WHAT, resumes=True, about=about)


@dataclass(frozen=True)
class _Listed:
    """A file of a folder in a store, as it was when the folder was listed.

    Attributes:
        remote: The file.
        place: Below the folder.
        info: The store's.
    """

    remote: _StoredFile
    place: PurePosixPath
    info: dict[str, Any]

    def is_as_listed(self) -> bool:
        """Return whether it still is what was listed, by what stores say in one form in both places."""
        now = self.remote.info()
        return all(now[fact] == self.info[fact] for fact in _OF_CONTENT if fact in now and fact in self.info)


def _below(name: str, folder: str) -> PurePosixPath:
    """Return the path of a file below a folder; a store takes any text for a name."""
    inner = PurePosixPath(name.removeprefix(folder).strip("/"))
    if ".." in inner.parts or inner.is_absolute() or "\0" in name:
        raise DownloadError(f"{shorten(name)} is no name of a file below {shorten(folder)}; rename it there")
    return inner


def _fetch_all(files: list[_Listed], folder: Path) -> None:
    """Bring files into a folder; those that are there with their size were brought before."""
    folder.mkdir(exist_ok=True)

    def bring(file: _Listed) -> int:
        target, n_bytes = folder / file.place, int(file.info["size"])
        if not (target.is_file() and target.stat().st_size == n_bytes):
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f".{target.name}.part")
            if not file.is_as_listed():
                raise DownloadError(f"{file.remote.shown}: {file.place} was changed meanwhile; give the same command again")
            with draft.open("wb") as opened:
                for block in file.remote.blocks(0):
                    opened.write(block)
                opened.flush()
                os.fsync(opened.fileno())
            draft.replace(target)
        return n_bytes

    title, n_bytes = f"fetch {folder.name}", sum(int(file.info["size"]) for file in files)
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        with Bar[None](total=n_bytes, unit="B", unit_scale=True, desc=title) as bar:
            for done in pool.map(bring, files):
                bar.update(done)
    except BrokenOffError as error:
        raise DownloadError(
            f"can't reach {files[0].remote.shown} ({error}); the same command goes on with what is missing"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
