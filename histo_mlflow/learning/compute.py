"""On what and how precisely the network computes; knows nothing of the network."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from histo_mlflow.errors import OptionError
from histo_mlflow.learning.depthwise import FastDepthwise
from histo_mlflow.learning.options import ComputeOptions

_BF16_MIN_TILE_PX_ON_CPU = 64


@dataclass(frozen=True)
class Compute:
    """A device and a number format that exist on this machine."""

    device: torch.device
    is_bf16: bool

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which a forward pass runs."""
        if self.is_bf16:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Give the context in which a forward pass runs that is learnt from."""
        with self.autocast(), FastDepthwise() if self.device.type == "cpu" else nullcontext():
            yield

    def in_fp32(self) -> "Compute":
        """Return the same device with full precision, as reported figures use it."""
        return Compute(self.device, is_bf16=False)

    def describe(self) -> str:
        """Return device, precision and thread count in a few words; with the seed they decide the result to the last bit."""
        return f"{self.device} {'bf16' if self.is_bf16 else 'fp32'}, {torch.get_num_threads()} CPU threads"


def resolve_compute(options: ComputeOptions, *, tile_size_px: int) -> Compute:
    """Return what `options` mean on this machine for training on tiles of that edge length."""
    device = resolve_device(options.device)
    is_bf16 = options.precision == "bf16" or (options.precision == "auto" and _gains_from_bf16(device, tile_size_px))
    return Compute(device, is_bf16)


def resolve_compute_for_report(options: ComputeOptions) -> Compute:
    """Return the device in fp32, so that reported figures mean the same everywhere, unless bf16 is asked for by name."""
    return Compute(resolve_device(options.device), is_bf16=options.precision == "bf16")


def resolve_device(name: str) -> torch.device:
    """Return the device, or raise `OptionError` if `name` is not a device of this machine."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise OptionError(f"device={name}: unknown; use auto, cpu, cuda, cuda:N or mps") from None
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    n_devices = present.get(device.type, 0)
    if (device.index or 0) >= n_devices:
        raise OptionError(f"device={name}: this machine has {n_devices} such device(s); use auto or cpu")
    return device


def _gains_from_bf16(device: torch.device, tile_size_px: int) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # Emulated bf16 is slower than fp32. With AVX512-BF16 a training step gains 1.1 to 1.7 times (docs/performance.md);
        # small tiles gain least and stay in fp32.
        return tile_size_px >= _BF16_MIN_TILE_PX_ON_CPU and bool(torch.cpu._is_avx512_bf16_supported())
    return False


def seed_everything(seed: int, *, deterministic: bool = False) -> None:
    """Seed torch's global generators, which draw first weights, dropout and stochastic depth; no other global one is used."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
