"""What the benchmarks share: tiles of noise, facts on the machine, and memory as Linux counts it."""

import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from histo_mlflow.base.whole_file import written_whole

sys.path.insert(0, str(Path(__file__).parent.parent))  # `tuning` is no part of what is installed

RESULTS = Path(__file__).parent / "results"
N_CLASSES = 9

_BLOCK_TILES = 64
_COARSE_PX = 16  # edge length of the patches between which colour changes smoothly
_GRAIN = 12  # grey levels of pixel noise, which keeps a compressed file from being unlike one of tissue


def noise_labels(n_tiles: int) -> NDArray[np.int64]:
    """Return ``(n_tiles,)`` labels of which each class has its share."""
    return np.arange(n_tiles, dtype=np.int64) % N_CLASSES


def draw_noise(n_tiles: int, size_px: int, *, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Yield blocks ``(n_block, size_px, size_px, 3)`` of `n_tiles` tiles: smooth noise around a colour per class, and grain."""
    rng = np.random.default_rng(seed)
    colours = rng.uniform(90, 200, (N_CLASSES, 3))
    labels = noise_labels(n_tiles)
    coarse_size = max(2, size_px // _COARSE_PX)
    for start in range(0, n_tiles, _BLOCK_TILES):
        base = colours[labels[start : start + _BLOCK_TILES]]
        coarse = rng.uniform(-45, 45, (len(base), 3, coarse_size, coarse_size)) + base[:, :, None, None]
        smooth = functional.interpolate(torch.from_numpy(coarse).float(), (size_px, size_px), mode="bilinear")
        tiles = smooth.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        yield tiles + rng.integers(0, _GRAIN, tiles.shape, dtype=np.uint8)


def read_memory_mib(pid: int | str = "self") -> dict[str, float]:
    """Return `VmHWM` (highest resident memory so far), `RssAnon` and `RssFile` of a process in MiB; empty when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("VmHWM", "RssAnon", "RssFile") if name in fields}


def describe_machine(device: str) -> dict[str, Any]:
    """Return what a reader of the figures must know of the machine."""
    facts: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "has_avx512_bf16": "avx512_bf16" in _read_cpu_info(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def write_results(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as JSON, whole or not at all."""
    with written_whole(path) as draft:
        draft.write_text(json.dumps(content, indent=2) + "\n")


def _cpu_model() -> str:
    names = [line.partition(":")[2].strip() for line in _read_cpu_info().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _read_cpu_info() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""
