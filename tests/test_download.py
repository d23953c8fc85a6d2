"""`histo download`, from a web server on this machine with archives that the tests make."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import histo_mlflow
from histo_mlflow.errors import DownloadError, OptionError, RequestError
from histo_mlflow.tiles import downloads, fetching, public_sets
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.public_sets import PUBLIC_SETS
from histo_mlflow.tiles.unpacking import unpack_zip
from tests.conftest import Histo
from tests.file_server import FileServer, file_server


def _archive(*, hostile: bool = False) -> bytes:
    """The 7K set in small: three tiles of two classes, in a folder of its own."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as opened:
        for k, name in enumerate(("TUM/1.tif", "TUM/2.tif", "STR/3.tif")):
            tile = io.BytesIO()
            Image.fromarray(np.full((8, 8, 3), 60 * k, dtype=np.uint8)).save(tile, "TIFF")
            opened.writestr(f"CRC-VAL-HE-7K/{name}", tile.getvalue())
        if hostile:
            opened.writestr("../../evil", "x")
    return written.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(fetching, "_PAUSE_SECONDS", 0.01)
    with file_server(etags={"CRC-VAL-HE-7K.zip": '"1"'}) as served:
        _serve(served, monkeypatch, _archive())
        yield served


def _serve(served: FileServer, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    served.files["CRC-VAL-HE-7K.zip"] = content
    small = replace(PUBLIC_SETS["crc-val-he-7k"], url=served.url("CRC-VAL-HE-7K.zip"), md5=hashlib.md5(content).hexdigest())
    monkeypatch.setitem(PUBLIC_SETS, "crc-val-he-7k", small)


def test_a_set_arrives_with_licence_citation_and_the_next_command(work: Path, server: FileServer, histo_here: Histo) -> None:
    done = histo_here("download", "crc-val-he-7k")
    assert done.returncode == 0, done.stderr
    data = work / "data" / "crc-val-he-7k" / "CRC-VAL-HE-7K"
    assert "licence: CC BY 4.0" in done.stdout
    assert "PLoS Med 2019" in done.stdout
    assert f"next: mlflow run . -e cv -P data={data} -P microns_per_pixel=0.5" in done.stdout
    assert [path.name for path in (work / "data").iterdir()] == ["crc-val-he-7k"]
    tiles = open_tiles(data)
    assert len(tiles) == 3
    assert tiles.classes[-1] == "TUM"


def test_in_python_it_returns_what_is_there(work: Path, server: FileServer) -> None:
    found = histo_mlflow.download("crc-val-he-7k", output="here")
    assert found.folder == work / "here"
    assert found.data == work / "here" / "CRC-VAL-HE-7K"


def test_the_sets_are_listed_and_a_wrong_name_is_told(work: Path, histo_here: Histo) -> None:
    done = histo_here("download")
    assert done.returncode == 2
    assert all(name in done.stdout for name in PUBLIC_SETS)
    assert "Error: name=none: name one of nct-crc-he-100k, " in done.stderr


def test_what_lies_there_is_left_alone(work: Path, server: FileServer) -> None:
    (work / "out").mkdir()
    (work / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OptionError, match="exists already, and nothing in it is touched"):
        histo_mlflow.download("crc-val-he-7k", output="out")
    assert [path.name for path in (work / "out").iterdir()] == ["mine.txt"]
    assert server.asked == []


def test_an_empty_folder_may_be_there(work: Path, server: FileServer) -> None:
    (work / "out").mkdir()
    assert histo_mlflow.download("crc-val-he-7k", output="out").data.is_dir()


def test_a_hostile_archive_leaves_nothing_and_may_be_fetched_anew(
    work: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _serve(server, monkeypatch, _archive(hostile=True))
    with pytest.raises(DownloadError, match=r"evil leads out of the folder; nothing was unpacked"):
        histo_mlflow.download("crc-val-he-7k", output="out")
    assert not list(work.rglob("evil"))
    assert not (work / "out").exists()
    _serve(server, monkeypatch, _archive())
    assert histo_mlflow.download("crc-val-he-7k", output="out").data.is_dir()


def test_no_network_names_the_address_and_the_way_by_hand(
    work: Path, monkeypatch: pytest.MonkeyPatch, histo_here: Histo
) -> None:
    monkeypatch.setattr(fetching, "_PAUSE_SECONDS", 0.01)
    away = replace(PUBLIC_SETS["pathmnist"], url="http://127.0.0.1:9/pathmnist.npz")
    monkeypatch.setitem(PUBLIC_SETS, "pathmnist", away)
    done = histo_here("download", "pathmnist")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert list((work / "data").iterdir()) == []
    assert "can't reach http://127.0.0.1:9/pathmnist.npz (" in done.stderr
    assert "or fetch http://127.0.0.1:9/pathmnist.npz by other means, and add --from-file pathmnist.npz" in done.stderr


def test_a_file_fetched_by_hand_is_taken_and_stays(work: Path, server: FileServer) -> None:
    (work / "mine.zip").write_bytes(_archive())
    found = histo_mlflow.download("crc-val-he-7k", output="out", from_file="mine.zip")
    assert (found.data / "TUM" / "1.tif").is_file()
    assert (work / "mine.zip").read_bytes() == _archive()
    assert server.asked == []


@pytest.mark.parametrize(
    ("content", "words"), [(b"no zip", "is not CRC-VAL-HE-7K.zip as published: MD5"), (None, "no such file")]
)
def test_another_file_is_refused(work: Path, server: FileServer, content: bytes | None, words: str) -> None:
    if content is not None:
        (work / "mine.zip").write_bytes(content)
    with pytest.raises(RequestError, match=words):
        histo_mlflow.download("crc-val-he-7k", output="out", from_file="mine.zip")
    assert not (work / "out").exists()


def test_an_npz_is_put_into_the_folder(work: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    np.savez(written, train_images=np.zeros((9, 28, 28, 3), np.uint8), train_labels=np.arange(9)[:, None])
    server.files["pathmnist.npz"] = written.getvalue()
    md5 = hashlib.md5(written.getvalue()).hexdigest()
    monkeypatch.setitem(PUBLIC_SETS, "pathmnist", replace(PUBLIC_SETS["pathmnist"], url=server.url("pathmnist.npz"), md5=md5))
    found = histo_mlflow.download("pathmnist")
    assert found.data == work / "data" / "pathmnist" / "pathmnist.npz"
    assert len(open_tiles(found.data)) == 9


def test_groups_of_lc25000_become_a_table_that_groups_takes(
    work: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch, histo_here: Histo
) -> None:
    rows = ["stem,filename,label,tissue,local_cluster_label,group_id"]
    for label in ("colon_n", "lung_n"):
        (work / "tiles" / label).mkdir(parents=True)
        for k in range(4):
            Image.fromarray(np.full((8, 8, 3), 20 * k, dtype=np.uint8)).save(work / "tiles" / label / f"{label}{k}.png")
            rows.append(f"{label}{k},{label}{k}.png,{label},x,{k // 2},{label}-{k // 2}")
    server.files["groups.csv"] = "\r\n".join(rows).encode()
    small = replace(PUBLIC_SETS["lc25000-groups"], url=server.url("groups.csv"))
    monkeypatch.setitem(PUBLIC_SETS, "lc25000-groups", small)
    done = histo_here("download", "lc25000-groups")
    assert done.returncode == 1
    assert "has 8 tiles in 4 groups, its makers speak of 25000 in 1246" in done.stderr
    monkeypatch.setattr(public_sets, "_LC25000_ROWS", 8)
    monkeypatch.setattr(public_sets, "_LC25000_GROUPS", 4)
    done = histo_here("download", "lc25000-groups")
    assert done.returncode == 0, done.stderr
    table = work / "data" / "lc25000-groups" / "groups.csv"
    assert f"-P groups={table}" in done.stdout
    from histo_mlflow.tiles.options import ReadingOptions

    tiles = open_tiles(work / "tiles", reading=ReadingOptions(groups=str(table)))
    assert tiles.groups is not None
    assert sorted(set(tiles.groups.tolist())) == ["colon_n-0", "colon_n-1", "lung_n-0", "lung_n-1"]


def test_two_commands_at_once_do_not_meet(work: Path, server: FileServer) -> None:
    from filelock import FileLock

    (work / "out.download").mkdir()
    with FileLock(work / "out.download" / "lock"), pytest.raises(RequestError, match="another command is bringing a set to"):
        histo_mlflow.download("crc-val-he-7k", output="out")


def test_ctrl_c_keeps_what_has_arrived_and_the_next_command_goes_on(work: Path, server: FileServer) -> None:
    content = bytes(6 * 10**6)
    server.files["big.npz"], server.etags["big.npz"] = content, '"big"'
    server.breaks_after = [3 * 10**6] * 50
    script = (
        "import hashlib, sys\n"
        "from dataclasses import replace\n"
        "from histo_mlflow.tiles import fetching\n"
        "from histo_mlflow.tiles.public_sets import PUBLIC_SETS\n"
        f"fetching._PAUSE_SECONDS = {{pause}}\n"
        f"md5 = '{hashlib.md5(content).hexdigest()}'\n"
        f"PUBLIC_SETS['pathmnist'] = replace(PUBLIC_SETS['pathmnist'], url='{server.url('big.npz')}', md5=md5)\n"
        "from histo_mlflow.cli import main\n"
        "main(['download', 'pathmnist', '--output', 'out'])\n"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", script.format(pause=60)], cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    part = work / "out.download" / "big.npz.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 10**6 and len(server.asked) == 1):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(started.pid, signal.SIGINT)
    out, err = started.communicate(timeout=30)
    assert started.returncode == 1
    assert "what has arrived is kept in" in out
    assert "interrupted by SIGINT" in err
    assert part.stat().st_size > 10**6
    server.breaks_after = []
    done = subprocess.run([sys.executable, "-c", script.format(pause=1)], cwd=work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(server.asked[-1]["Range"][6:-1]) > 10**6
    assert (work / "out" / "big.npz").read_bytes() == content
    assert not (work / "out.download").exists()


def test_the_table_of_sets_is_whole() -> None:
    assert len(PUBLIC_SETS) == 7
    for name, known in PUBLIC_SETS.items():
        assert known.url.startswith("https://"), name
        assert "licence" not in known.licence
        assert len(known.md5) in {0, 32}, name
        is_zip = known.file_name.endswith(".zip")
        assert is_zip == (isinstance(known.place, partial) and known.place.func is unpack_zip), name
    assert [name for name, known in PUBLIC_SETS.items() if not known.md5] == ["lc25000-groups"]


def test_data_is_found_below_a_folder_of_its_own_and_without_one(tmp_path: Path) -> None:
    for path in ("a/set/TUM/1.tif", "a/set/STR/1.tif", "a/__MACOSX/x", "a/.hidden", "b/TUM/1.tif", "b/STR/2.tif", "c/d.npz"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = [downloads.find_data(tmp_path / name).relative_to(tmp_path).as_posix() for name in "abc"]
    assert found == ["a/set", "b", "c/d.npz"]
