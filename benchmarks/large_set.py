"""Seconds until training has begun and memory while it runs, for few and for many tiles: neither should grow with the set.

Writes files of noise, starts `python -m histo_mlflow train` on each as a user would, ends it after some steps by SIGTERM and
watches its memory from outside. Files are put out of the page cache before each start, so that a start reads from the disk.
A bare training step on one batch without any set shows what the network itself needs. Linux only.

Writes ``benchmarks/results/large-set.json``.
"""

import argparse
import os
import pty
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import termios
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import N_CLASSES, RESULTS, describe_machine, draw_noise, noise_labels, read_memory_mib, write_results

from histo_mlflow.console import format_table, say

_REPOSITORY = Path(__file__).parent.parent
_SAMPLE_SECONDS = 0.5
_END_SECONDS = 120  # for a training to end its run after SIGTERM
_COUNT = re.compile(rb"epoch[^\r\n]*?\b(\d+)/(\d+) \[")  # of the progress bar: "epoch 1/1:   2%|2    | 8/450 [00:06<05:37"


@dataclass
class Watched:
    """What was seen of a process; memory in MiB, times in seconds from its start.

    Attributes:
        first_bar_seconds: When the bar of the first epoch appeared: all was open and the loop began.
        first_step_seconds: When the first training step was done.
        anon_before_first_step: `RssAnon` when the bar appeared.
        n_steps: Steps done when it was ended.
        samples: (seconds, `RssAnon`, `RssFile`) of every half second.
        tail: The end of what it said.
    """

    first_bar_seconds: float | None = None
    first_step_seconds: float | None = None
    anon_before_first_step: float | None = None
    n_steps: int = 0
    samples: list[tuple[float, float, float]] = field(default_factory=list)
    tail: str = ""

    def peak(self, column: int) -> float:
        """Return the highest value of a column of `samples`."""
        return max((sample[column] for sample in self.samples), default=0.0)


def parse_arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tiles", type=int, default=18000, help="tiles of the large set")
    parser.add_argument("--small-tiles", type=int, default=2000, help="tiles of the set that it is compared with")
    parser.add_argument("--tile-size", type=int, default=224, help="edge length in pixels")
    parser.add_argument("--batch-sizes", default="32", help="tiles per step, with commas between")
    parser.add_argument("--steps", type=int, default=8, help="training steps before a training is ended")
    parser.add_argument("--repeats", type=int, default=5, help="starts of each kind; the table shows medians")
    parser.add_argument("--compressed", action="store_true", help="also a compressed file: its first and its second start")
    parser.add_argument("--device", default="auto", help="as the option of that name of `histo train`")
    parser.add_argument("--timeout", type=float, default=900, help="seconds after which a training is given up")
    parser.add_argument("--folder", type=Path, help="for the files, which are kept there (default: a temporary folder)")
    parser.add_argument("--output", type=Path, default=RESULTS / "large-set.json", help="the JSON file")
    parser.add_argument("--bare-step", type=int, help=argparse.SUPPRESS)  # how the script calls itself
    return parser.parse_args()


def main() -> None:
    """Measure all starts, print a table and write the figures; or as a child do the bare step."""
    options = parse_arguments()
    if options.bare_step:
        step_without_set(options)
        return
    batch_sizes = [int(size) for size in options.batch_sizes.split(",")]
    content: dict[str, Any] = {
        "machine": describe_machine("cpu"),
        "settings": {name: getattr(options, name) for name in ("tile_size", "steps", "device")},
        "starts": [],
    }
    with folder_for_files(options.folder) as folder:
        stored = [write_npz(folder, n, options.tile_size, is_compressed=False) for n in (options.small_tiles, options.tiles)]
        for number in range(options.repeats):
            say(f"round {number + 1} of {options.repeats}")
            for batch_size in batch_sizes:
                watched = watch_bare_step(batch_size, folder, options)
                content["starts"].append(describe("bare step", None, batch_size, watched))
                for n_tiles, path in zip((options.small_tiles, options.tiles), stored, strict=True):
                    watched = watch_training(path, batch_size, folder, options)
                    content["starts"].append(describe("stored", n_tiles, batch_size, watched))
        if options.compressed:
            path = write_npz(folder, options.tiles, options.tile_size, is_compressed=True)
            shutil.rmtree(folder / "cache", ignore_errors=True)  # of an earlier call: a first start unpacks
            for kind in ("compressed, first", *["compressed, again"] * options.repeats):
                watched = watch_training(path, batch_sizes[-1], folder, options)
                content["starts"].append(describe(kind, options.tiles, batch_sizes[-1], watched))
        write_results(options.output, content)
    say("\n" + format_starts(content["starts"]))
    say(f"written to {options.output}")


@contextmanager
def folder_for_files(folder: Path | None) -> Iterator[Path]:
    """Give `folder`, made if need be, or a temporary one that is removed afterwards."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="histo-large-set-") as temporary:
        yield Path(temporary)


def write_npz(folder: Path, n_tiles: int, size_px: int, *, is_compressed: bool) -> Path:
    """Write a file of noise block by block, unless it is already there, and return its path."""
    path = folder / f"noise-{n_tiles}-{size_px}{'-compressed' if is_compressed else ''}.npz"
    if path.exists():
        return path
    say(f"writing {path.name} ...")
    draft = path.with_suffix(".draft")
    compression = zipfile.ZIP_DEFLATED if is_compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(draft, "w", compression, compresslevel=1) as archive:
        with archive.open("data.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": (n_tiles, size_px, size_px, 3)}
            np.lib.format.write_array_header_1_0(member, header)
            for block in draw_noise(n_tiles, size_px):
                member.write(np.ascontiguousarray(block).data)
        with archive.open("labels.npy", "w") as member:
            np.lib.format.write_array(member, noise_labels(n_tiles))
    draft.replace(path)
    return path


def watch_training(path: Path, batch_size: int, folder: Path, options: argparse.Namespace) -> Watched:
    """Train on `path` through the command line until the asked number of steps is done, and return what was seen."""
    say(f"{path.name}, batch {batch_size} ...")
    drop_page_cache(folder)
    arguments = ["train", "--data", str(path), "--weights", "none", "--epochs", "1", "--batch-size", str(batch_size)]
    arguments += ["--device", options.device]
    with tempfile.TemporaryDirectory(dir=folder, prefix="work-") as work:
        return watch([sys.executable, "-m", "histo_mlflow", *arguments], Path(work), folder, options)


def watch_bare_step(batch_size: int, folder: Path, options: argparse.Namespace) -> Watched:
    """Run the bare step in a process of its own and return what was seen."""
    command = [sys.executable, str(Path(__file__).resolve()), "--bare-step", str(batch_size)]
    command += ["--tile-size", str(options.tile_size), "--device", options.device, "--steps", str(options.steps)]
    return watch(command, folder, folder, options)


def step_without_set(options: argparse.Namespace) -> None:
    """Repeat the training step of `fit` on one batch of `bare_step` tiles that lies on the device."""
    import torch
    from torch.nn import functional

    from histo_mlflow.learning.compute import ComputeOptions, resolve_compute
    from histo_mlflow.models.classifier import TileClassifier
    from histo_mlflow.process import keep_freed_memory

    keep_freed_memory()
    batch_size, size_px = options.bare_step, options.tile_size
    compute = resolve_compute(ComputeOptions(device=options.device), tile_size_px=size_px)
    network = TileClassifier(n_classes=N_CLASSES, tile_size_px=size_px).to(compute.device).to(memory_format=torch.channels_last)
    tiles = torch.from_numpy(np.concatenate(list(draw_noise(batch_size, size_px)))).to(compute.device)
    labels = torch.from_numpy(noise_labels(batch_size)).to(compute.device)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    for step in range(options.steps):
        report_step(step, options.steps)
        with compute.autocast():
            logits = network(tiles)
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
    report_step(options.steps, options.steps)


def report_step(step: int, n_steps: int) -> None:
    """Say how many steps are done as the progress bar of a training says it."""
    print(f"epoch 1/1: {step}/{n_steps} [", file=sys.stderr, flush=True)


def watch(command: list[str], work: Path, folder: Path, options: argparse.Namespace) -> Watched:
    """Start `command` in `work` with a terminal of its own, sample its memory, end it after the asked steps."""
    environment = {**os.environ, "HISTO_CACHE_DIR": str(folder / "cache"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["THP_MEM_ALLOC_ENABLE"] = "1"  # for the bare step; a training sets it itself
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_REPOSITORY), os.environ.get("PYTHONPATH")]))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        environment.pop(name, None)
    # A progress bar is drawn only on a terminal, and whole only on a wide one; a new terminal has no width at all.
    terminal, end_of_child = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 200))
    started = time.monotonic()
    child = subprocess.Popen(command, cwd=work, env=environment, stdout=end_of_child, stderr=end_of_child)  # noqa: S603 - ours
    os.close(end_of_child)
    watched = Watched()
    try:
        _follow(child, terminal, started, watched, options)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        os.close(terminal)
    if watched.first_step_seconds is None:
        say(f"no training step was seen; the process said:\n{watched.tail}")
    return watched


def _follow(
    child: subprocess.Popen[bytes], terminal: int, started: float, watched: Watched, options: argparse.Namespace
) -> None:
    deadline, next_sample, is_ending, said = started + options.timeout, started, False, b""
    while child.poll() is None and time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], max(0.0, min(next_sample - time.monotonic(), _SAMPLE_SECONDS)))
        if ready:
            said = (said + _read(terminal))[-8192:]
            watched.tail = said[-2000:].decode(errors="replace")
        seconds = time.monotonic() - started
        memory = read_memory_mib(child.pid)
        counts = [int(match[1]) for match in _COUNT.finditer(said)]
        if counts and watched.first_bar_seconds is None:
            watched.first_bar_seconds, watched.anon_before_first_step = seconds, memory.get("RssAnon")
        if counts and max(counts) >= 1 and watched.first_step_seconds is None:
            watched.first_step_seconds = seconds
        if not is_ending:
            watched.n_steps = max([watched.n_steps, *counts])
        if time.monotonic() >= next_sample and "RssAnon" in memory:
            watched.samples.append((seconds, memory["RssAnon"], memory["RssFile"]))
            next_sample = time.monotonic() + _SAMPLE_SECONDS
        if watched.n_steps >= options.steps and not is_ending:
            child.send_signal(signal.SIGTERM)
            deadline, is_ending = time.monotonic() + _END_SECONDS, True


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the child has closed its end
        time.sleep(0.05)
        return b""


def drop_page_cache(folder: Path) -> None:
    """Ask Linux to forget what it holds in memory of the files under `folder`."""
    for path in folder.rglob("*.np[yz]"):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # only what is on the disk can be forgotten
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def describe(kind: str, n_tiles: int | None, batch_size: int, watched: Watched) -> dict[str, Any]:
    """Return one start as it is written down."""
    return {
        "kind": kind,
        "tiles": n_tiles,
        "batch_size": batch_size,
        "steps": watched.n_steps,
        "seconds_to_loop": watched.first_bar_seconds,
        "seconds_to_first_step": watched.first_step_seconds,
        "anon_before_first_step_mib": watched.anon_before_first_step,
        "peak_anon_mib": watched.peak(1),
        "peak_file_mib": watched.peak(2),
        "samples": [[round(value, 1) for value in sample] for sample in watched.samples],
    }


def format_starts(starts: list[dict[str, Any]]) -> str:
    """Return the table of the kinds of starts: medians, and of the first step the range."""
    header = ["start", "tiles", "batch", "n", "s to loop", "s to 1st step", "range", "anon at loop", "peak anon MiB"]
    kinds = dict.fromkeys((start["kind"], start["tiles"], start["batch_size"]) for start in starts)
    rows = []
    for kind, n_tiles, batch_size in kinds:
        same = [
            start for start in starts if (start["kind"], start["tiles"], start["batch_size"]) == (kind, n_tiles, batch_size)
        ]
        first = [start["seconds_to_first_step"] for start in same if start["seconds_to_first_step"] is not None]
        rows.append(
            [
                kind,
                str(n_tiles or "-"),
                str(batch_size),
                str(len(same)),
                _median(same, "seconds_to_loop", 1),
                _median(same, "seconds_to_first_step", 1),
                f"{min(first):.1f} to {max(first):.1f}" if first else "-",
                _median(same, "anon_before_first_step_mib", 0),
                _median(same, "peak_anon_mib", 0),
            ]
        )
    return format_table(header, rows)


def _median(starts: list[dict[str, Any]], column: str, digits: int) -> str:
    values = [start[column] for start in starts if start[column] is not None]
    return f"{statistics.median(values):.{digits}f}" if values else "-"


if __name__ == "__main__":
    main()
