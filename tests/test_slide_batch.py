"""Many slides shared by processes that are killed: each is done once, and odd ones are named."""

import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.colour_reader import register
from tests.coloured_slides import MODEL_MICRONS, chessboard, draw, write_odd_slides, write_slide
from tests.conftest import Histo
from tests.forking import Forks
from tests.test_slide import PLAIN, _summary

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("work")]

N_GOOD, N_SHARDS, N_KILLS = 15, 4, 3
_PATIENCE_SECONDS = 240


def test_twenty_slides_five_of_them_odd_in_four_shards_killed_three_times(work: Path, forks: Forks) -> None:
    register(0.0, microns_per_pixel=MODEL_MICRONS)
    slides, states, log = work / "slides", work / "scored" / "state", work / "log"
    slides.mkdir()
    good = {write_slide(slides / f"good{k:02d}.tif", draw(chessboard(k))).stem for k in range(N_GOOD)}
    odd = write_odd_slides(slides)

    def begin() -> list[int]:
        return [
            forks.start(
                "slide", "--slides", "slides", "--output", "scored", "--shard", f"{k}/{N_SHARDS}", *PLAIN,
                cwd=work, log=log, environment=os.environ,
            )
            for k in range(1, N_SHARDS + 1)
        ]  # fmt: skip

    def done() -> set[str]:
        return {path.stem for path in states.glob("*.json")}

    kept: dict[str, int] = {}
    for _ in range(N_KILLS):
        pids, n_before = begin(), len(done())
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while len(done()) < n_before + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)  # one that has ended is a zombie until it is waited for
        assert -signal.SIGKILL in [forks.wait(pid) for pid in pids]  # a shard may have come to its end
        assert len(done()) < N_GOOD
        assert all((states / f"{name}.json").stat().st_mtime_ns == when for name, when in kept.items())
        kept |= {name: (states / f"{name}.json").stat().st_mtime_ns for name in done()}
    log.write_text(log.read_text() + "LAST\n")
    assert sum(forks.wait(pid) for pid in begin()) > 0
    assert done() == good
    assert all((states / f"{name}.json").stat().st_mtime_ns == when for name, when in kept.items())
    said = log.read_text()
    finished = re.findall(r"^(\w+): \d+ tiles in", said, flags=re.MULTILINE)
    assert len(finished) == len(set(finished))
    last_errors = " ".join(line for line in said.partition("LAST")[2].splitlines() if line.startswith("Error:"))
    assert all(f"{name}: " in last_errors and words in last_errors for name, words in odd.items())
    assert not [path.name for path in states.iterdir() if path.suffix not in {".json", ".txt"}]
    summary = _summary()
    assert {name for name, row in summary.items() if row["state"] == "done"} == good
    assert {name for name, row in summary.items() if row["state"].startswith("failed")} == odd.keys()


def test_processes_without_shards_share_a_folder(work: Path, forks: Forks) -> None:
    register(0.0, microns_per_pixel=MODEL_MICRONS)
    (work / "slides").mkdir()
    good = {write_slide(work / "slides" / f"good{k:02d}.tif", draw(chessboard(k))).stem for k in range(N_GOOD)}
    asked = ("slide", "--slides", "slides", "--output", "scored", *PLAIN)
    pids = [forks.start(*asked, cwd=work, log=work / "log", environment=os.environ) for _ in range(3)]
    assert [forks.wait(pid) for pid in pids] == [0, 0, 0]
    finished = re.findall(r"^(\w+): \d+ tiles in", (work / "log").read_text(), flags=re.MULTILINE)
    assert sorted(finished) == sorted(good)
    assert {name for name, row in _summary().items() if row["state"] == "done"} == good


def test_spark_with_two_workers_says_what_one_process_says(work: Path, histo: Histo) -> None:
    pytest.importorskip("pyspark.sql", reason="install it: python -m pip install -e '.[spark]'")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java 17")
    register(0.0, microns_per_pixel=MODEL_MICRONS)
    (work / "slides").mkdir()
    for k in range(5):
        write_slide(work / "slides" / f"good{k}.tif", draw(chessboard(k)))
    odd = write_odd_slides(work / "slides")
    asked = ("slide", "--slides", "slides", *PLAIN)
    alone = histo(*asked, "--output", "alone")
    shared = histo(*asked, "--output", "shared", "--spark", "local[2]", SPARK_LOCAL_IP="127.0.0.1")
    assert alone.returncode == shared.returncode == 1
    assert "5 done, 5 failed" in alone.stdout
    assert "5 done, 5 failed" in shared.stdout
    assert all(words in shared.stderr.strip().splitlines()[-1] for words in odd.values())
    for k in range(5):
        maps = [tifffile.imread(f"{folder}/good{k}.ome.tif") for folder in ("shared", "alone")]
        np.testing.assert_array_equal(*maps)
        for ending in (".csv", ".geojson.gz", ".tissue.geojson"):
            assert Path(f"shared/good{k}{ending}").read_bytes() == Path(f"alone/good{k}{ending}").read_bytes(), (k, ending)
    assert not histo(*asked, "--output", "shared").stdout.count("tiles in")
