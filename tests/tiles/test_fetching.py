"""Files fetched from a web server on this machine, which breaks off, changes and lies."""

import hashlib
import resource
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from histo_mlflow.errors import DownloadError
from histo_mlflow.tiles import fetching
from histo_mlflow.tiles.fetching import HttpFile, fetch
from tests.file_server import FileServer, file_server

CONTENT = bytes(range(256)) * 4096 * 3  # 3 MiB: several blocks
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(fetching, "_PAUSE_SECONDS", 0.01)
    with file_server(files={"a.zip": CONTENT}, etags={"a.zip": '"one"'}) as served:
        yield served


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_and_nothing_else(server: FileServer, tmp_path: Path) -> None:
    fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip", md5=MD5)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert _left(tmp_path) == ["a.zip"]
    assert "Range" not in server.asked[0]


def test_a_broken_connection_goes_on_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    server.breaks_after = [2_000_000, 500_000]
    fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip", md5=MD5)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    ranges = [asked.get("Range", "") for asked in server.asked]
    assert len(ranges) == 3
    assert all(ranges[1:])
    assert server.asked[1]["If-Range"] == '"one"'
    assert int(ranges[1][6:-1]) < int(ranges[2][6:-1]) < len(CONTENT)


def test_an_interrupted_call_goes_on_in_the_next(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    server.breaks_after = [2_000_000]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetching.time, "sleep", interrupt)
        fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip", md5=MD5)
    assert _left(tmp_path) == ["a.zip.part", "a.zip.part.json"]
    have = (tmp_path / "a.zip.part").stat().st_size
    assert have > 0
    fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip", md5=MD5)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.asked[-1]["Range"] == f"bytes={have}-"


def test_a_server_without_ranges_sends_all_again(server: FileServer, tmp_path: Path) -> None:
    server.breaks_after, server.knows_ranges = [2_000_000], False
    fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip", md5=MD5)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("heeds", [True, False])
def test_two_versions_are_never_mixed(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heeds: bool) -> None:
    """Also where the server sends the rest of the new version, whatever `If-Range` says."""
    newer = CONTENT[::-1]

    def change(_: float) -> None:
        server.files["a.zip"], server.etags["a.zip"] = newer, '"two"'

    server.breaks_after, server.heeds_if_range = [2_000_000], heeds
    monkeypatch.setattr(fetching.time, "sleep", change)
    fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == newer


def test_without_a_version_and_a_sum_the_beginning_is_not_trusted(server: FileServer, tmp_path: Path) -> None:
    server.etags, server.breaks_after = {}, [2_000_000]
    fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert all("Range" not in asked for asked in server.asked)


def test_a_weak_tag_is_no_version(server: FileServer, tmp_path: Path) -> None:
    server.etags, server.breaks_after = {"a.zip": 'W/"one"'}, [2_000_000]
    fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip")
    assert all("Range" not in asked for asked in server.asked)


def test_a_wrong_sum_is_told_and_thrown_away(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=rf"a\.zip is not what was published: MD5 {MD5} .*, expected 00; .*try again"):
        fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip", md5="00")
    assert _left(tmp_path) == []


def test_what_was_complete_before_the_kill_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    (tmp_path / "a.zip.part.json").write_text(f'{{"version": "", "n_bytes": {len(CONTENT)}}}')
    fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip", md5=MD5)
    assert server.asked == []
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("facts", ["", "[]", '{"version": "x"}', '{"version": 1, "n_bytes": "y"}'])
def test_damaged_notes_of_an_earlier_call_mean_a_new_beginning(server: FileServer, tmp_path: Path, facts: str) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"of something else")
    (tmp_path / "a.zip.part.json").write_text(facts)
    fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip", md5=MD5)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_beginning_longer_than_the_file_means_a_new_beginning(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT + b"more")
    (tmp_path / "a.zip.part.json").write_text('{"version": "\\"one\\"", "n_bytes": null}')
    fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip", md5=MD5)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip", md5=MD5)
    assert len(server.asked) == 3


def test_what_is_not_there_is_told_at_once(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"b\.zip can't be fetched \(HTTP 404 Not Found\)"):
        fetch(HttpFile(server.url("b.zip")), tmp_path / "b.zip")
    assert len(server.asked) == 1


def test_no_network_is_told_with_the_address(server: FileServer, tmp_path: Path) -> None:
    address = "http://user:hunter22@127.0.0.1:9/a.zip"
    with pytest.raises(DownloadError, match=r"can't reach http://user:\*\*\*@127\.0\.0\.1:9/a\.zip \(.*refused") as raised:
        fetch(HttpFile(address), tmp_path / "a.zip")
    assert "hunter22" not in str(raised.value)


def test_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"can't be fetched"):
        fetch(HttpFile("http://"), tmp_path / "a.zip")


def test_room_is_looked_for_before_the_first_byte(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(DownloadError, match=r"has 0\.00 GB of room, and 0\.00 GB are to come; make room"):
        fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip")
    assert _left(tmp_path) == []


def test_a_disk_that_fills_up_keeps_what_is_there(server: FileServer, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip", md5=MD5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "a.zip.part").stat().st_size <= 2**21
    fetch(HttpFile(server.url("a.zip")), tmp_path / "a.zip", md5=MD5)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
