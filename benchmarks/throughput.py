"""Tiles per second and peak memory of training and inference: ours, what the hardware allows, and the usual alternatives.

Every arm runs in a process of its own, so that each has its own peak of memory, and every round runs each arm once, in rotating
order, so that a busy minute of the machine does not fall on one arm alone.

Writes ``benchmarks/results/throughput-<device>.json`` after every round.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, describe_machine, draw_noise, noise_labels, read_memory_mib, write_results
from throughput_arms import ARMS, INFERENCE, TRAINING, Job

from histo_mlflow.console import format_table, say, warn
from histo_mlflow.process import keep_freed_memory

_ARM_SECONDS = 1800
_GPU_TILES = 6400
_BUSY_LOAD = 0.5  # of the last minute


def parse_arguments() -> argparse.Namespace:
    """Return the options, with defaults that depend on the device filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--task", choices=["train", "infer", "both"], default="both", help="what to measure")
    parser.add_argument(
        "--arms",
        default=argparse.SUPPRESS,
        help=f"only these, with commas between: {', '.join(ARMS)}; ours is needed for ratios",
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each arm runs")
    parser.add_argument(
        "--tiles", default=argparse.SUPPRESS, type=int, help="tiles timed in training (default: 96 on a CPU, 6400 on a GPU)"
    )
    parser.add_argument(
        "--infer-tiles",
        default=argparse.SUPPRESS,
        type=int,
        help="tiles timed in inference (default: 192 on a CPU, 6400 on a GPU)",
    )
    parser.add_argument("--tile-size", type=int, default=224, help="edge length in pixels")
    parser.add_argument("--batch-size", type=int, default=32, help="tiles per step of training")
    parser.add_argument(
        "--infer-batch-size",
        default=argparse.SUPPRESS,
        type=int,
        help="tiles per forward pass (default: 64 on a CPU, 128 on a GPU)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=argparse.SUPPRESS,
        help="processes of the peers' DataLoader (default: 0 on a CPU, the number of cores on a GPU)",
    )
    parser.add_argument("--skip-compile", action="store_true", help="leave out torch.compile, which takes minutes")
    parser.add_argument(
        "--output",
        default=argparse.SUPPRESS,
        type=Path,
        help="the JSON file (default: benchmarks/results/throughput-<device>.json)",
    )
    for hidden in ("--arm", "--folder", "--result"):  # how the script calls itself
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    is_cuda = options.device.startswith("cuda")
    # A tile through PIL costs 1 ms of a core and its training step 80 ms or more: on a CPU workers have next to nothing to win,
    # and take their share of the cores from the maths.
    fallbacks = {
        "arms": None,
        "tiles": _GPU_TILES if is_cuda else 96,
        "infer_tiles": _GPU_TILES if is_cuda else 192,
        "infer_batch_size": 128 if is_cuda else 64,
        "workers": (os.cpu_count() or 1) if is_cuda else 0,
        "output": RESULTS / f"throughput-{options.device.partition(':')[0]}.json",
    }
    for name, value in fallbacks.items():
        if not hasattr(options, name):
            setattr(options, name, value)
    for tiles, batch in (("tiles", "batch_size"), ("infer_tiles", "infer_batch_size")):
        if getattr(options, tiles) % getattr(options, batch):
            parser.error(f"--{tiles.replace('_', '-')} must be a multiple of --{batch.replace('_', '-')}")
    if options.arms and (unknown := set(options.arms.split(",")) - ARMS.keys()):
        parser.error(f"--arms: unknown: {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    """Measure all arms, or as a child one arm."""
    options = parse_arguments()
    if options.arm:
        measure(options)
        return
    names, left_out = choose_arms(options)
    for name, reason in left_out.items():
        say(f"{name}: {reason}")
    if (load := os.getloadavg()[0]) > _BUSY_LOAD:
        warn(f"the machine is busy (load {load:.1f}): threads that wait for one another make such figures worthless")
    with tempfile.TemporaryDirectory(prefix="histo-throughput-") as folder:
        write_tiles(Path(folder), options)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for number in range(options.rounds):
            shift = number * max(1, len(names) // options.rounds) % len(names)
            for name in names[shift:] + names[:shift]:
                runs[name].append(run_arm(name, Path(folder), options, label=f"round {number + 1}/{options.rounds}"))
            content = {"machine": describe_machine(options.device), "settings": describe_settings(options)}
            write_results(options.output, {**content, "arms": {**summarise(runs), **left_out}})
    say("\n" + format_summary(summarise(runs), is_cuda=options.device.startswith("cuda")))
    say(f"written to {options.output}")


def choose_arms(options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """Return the arms to run, and those that can't be with the reason."""
    offered = {"train": TRAINING, "infer": INFERENCE, "both": ARMS}[options.task]
    asked = [name for name in offered if not options.arms or name in options.arms.split(",")]
    left_out: dict[str, str] = {}
    for name in asked:
        arm = ARMS[name]
        if arm.needs and importlib.util.find_spec(arm.needs) is None:
            left_out[name] = f"not installed: {arm.needs}"
        elif arm.is_compiled and options.skip_compile:
            left_out[name] = "skipped"
        elif name.endswith("-bf16") and options.device == "cpu" and not torch.cpu._is_avx512_bf16_supported():
            left_out[name] = "this processor emulates bf16"
    return [name for name in asked if name not in left_out], left_out


def write_tiles(folder: Path, options: argparse.Namespace) -> None:
    """Write as many tiles as the larger task needs to ``images.npy``."""
    n_tiles, size = max(options.tiles, options.infer_tiles), options.tile_size
    images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(n_tiles, size, size, 3))
    done = 0
    for block in draw_noise(n_tiles, size):
        images[done : done + len(block)] = block
        done += len(block)
    images.flush()


def run_arm(name: str, folder: Path, options: argparse.Namespace, *, label: str) -> dict[str, Any]:
    """Run one arm in a process of its own, say how fast it was and return what it measured, or its error."""
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--arm", name, "--folder", str(folder), "--result", str(result)]
    for option in ("device", "tiles", "infer_tiles", "tile_size", "batch_size", "infer_batch_size", "workers"):
        command += [f"--{option.replace('_', '-')}", str(getattr(options, option))]
    # Compiled code is kept from round to round, so the first round shows a cold start and the later ones a warm one.
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    try:
        child = subprocess.run(  # noqa: S603 - this script
            command, env=environment, capture_output=True, text=True, timeout=_ARM_SECONDS, check=False
        )
        complaint = child.stderr.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
    except subprocess.TimeoutExpired:
        complaint = [f"took more than {_ARM_SECONDS} s"]
    took = time.perf_counter() - started
    if not result.exists():
        say(f"{label}  {name:22} failed: {complaint[0]}")
        return {"error": complaint[0]}
    measured: dict[str, Any] = json.loads(result.read_text())
    memory = f"{measured['peak_mib']:.0f} MiB"
    say(f"{label}  {name:22} {measured['tiles_per_second']:8.2f} tiles/s  {memory:>10}  (process: {took:.0f} s)")
    return measured


def measure(options: argparse.Namespace) -> None:
    """Run the arm that `options` name in this process and write what it measured."""
    arm = ARMS[options.arm]
    if arm.keeps_memory:
        keep_freed_memory()  # as our command line does; the peers get the same
    is_training = options.arm in TRAINING
    n_tiles = options.tiles if is_training else options.infer_tiles
    batch_size = options.batch_size if is_training else options.infer_batch_size
    is_cuda = options.device.startswith("cuda")
    torch.manual_seed(0)
    job = Job(
        images=np.load(Path(options.folder) / "images.npy", mmap_mode="r")[:n_tiles],
        labels=noise_labels(n_tiles),
        device=options.device,
        batch_size=batch_size,
        # A GPU chooses its kernels and fills its pools of memory over many steps; on a CPU that takes one, and time is dear.
        n_warm_up=n_tiles if is_cuda else batch_size,
        n_workers=options.workers,
    )
    measured = arm.run(job)
    content: dict[str, Any] = {
        "tiles_per_second": measured.tiles_per_second,
        "compile_seconds": measured.compile_seconds,
        "peak_mib": read_memory_mib().get("VmHWM", 0.0),
        "peak_gpu_mib": torch.cuda.max_memory_allocated(options.device) / 2**20 if is_cuda else None,
    }
    write_results(Path(options.result), content)


def describe_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that decide the figures, and the versions of the peers."""
    names = ("rounds", "tiles", "infer_tiles", "tile_size", "batch_size", "infer_batch_size", "workers")
    versions = {}
    for package in ("torchvision", "timm", "lightning"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {**{name: getattr(options, name) for name in names}, "versions": versions}


def summarise(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return for each arm all values, their median, both ratios of ours to it, and its highest peaks of memory."""
    return {name: _summarise_arm(name, runs) for name in runs}


def _summarise_arm(name: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    own = [run for run in runs[name] if "error" not in run]
    summary: dict[str, Any] = {"what": ARMS[name].what, "errors": [run["error"] for run in runs[name] if "error" in run]}
    if not own:
        return summary
    values = [run["tiles_per_second"] for run in own]
    summary |= {
        "tiles_per_second": statistics.median(values),
        "all_tiles_per_second": values,
        "peak_mib": max(run["peak_mib"] for run in own),
        "peak_gpu_mib": max((run["peak_gpu_mib"] for run in own if run["peak_gpu_mib"] is not None), default=None),
        "compile_seconds": [run["compile_seconds"] for run in own if run["compile_seconds"] is not None],
    }
    ours = runs.get(ARMS[name].ours, [])
    pairs = [
        (a["tiles_per_second"], b["tiles_per_second"])
        for a, b in zip(ours, runs[name], strict=False)
        if "error" not in a and "error" not in b
    ]
    if pairs:
        summary["ours_to_this"] = {
            "ratio_of_medians": statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs),
            "median_of_ratios": statistics.median(a / b for a, b in pairs),
            "all_ratios": [a / b for a, b in pairs],
        }
    return summary


def format_summary(arms: dict[str, dict[str, Any]], *, is_cuda: bool) -> str:
    """Return the table of all arms."""
    header = ["arm", "tiles/s", "lowest", "highest", "ours/it: of medians", "median of rounds", "peak MiB", "first pass s"]
    rows = []
    for name, arm in arms.items():
        if "tiles_per_second" not in arm:
            rows.append([name, "failed", *[""] * (len(header) - 2), *([""] if is_cuda else [])])
            continue
        values, ratios, compiling = arm["all_tiles_per_second"], arm.get("ours_to_this"), arm["compile_seconds"]
        row = [name, *(f"{value:.2f}" for value in (arm["tiles_per_second"], min(values), max(values)))]
        row += [f"{ratios['ratio_of_medians']:.2f}", f"{ratios['median_of_ratios']:.2f}"] if ratios else ["", ""]
        row += [f"{arm['peak_mib']:.0f}", f"{compiling[0]:.0f}" if compiling else ""]
        rows.append([*row, f"{arm['peak_gpu_mib']:.0f}"] if is_cuda else row)
    return format_table([*header, "peak GPU MiB"] if is_cuda else header, rows)


if __name__ == "__main__":
    main()
