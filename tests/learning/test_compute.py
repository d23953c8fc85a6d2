import pytest
import torch

from histo_mlflow.errors import OptionError
from histo_mlflow.learning.compute import resolve_compute, resolve_compute_for_report
from histo_mlflow.learning.options import ComputeOptions, SeedOptions


@pytest.mark.parametrize("device", ["tpu9", "cuda:99", "", "cpu:1", "xpu"])
def test_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(OptionError, match=f"device={device}"):
        resolve_compute(ComputeOptions(device=device), tile_size_px=32)


def test_precision() -> None:
    with pytest.raises(OptionError, match="precision=fp8"):
        ComputeOptions(precision="fp8")
    assert resolve_compute(ComputeOptions("cpu", "bf16"), tile_size_px=32).is_bf16
    assert not resolve_compute(ComputeOptions("cpu", "fp32"), tile_size_px=224).is_bf16
    assert not resolve_compute(ComputeOptions("cpu", "auto"), tile_size_px=32).is_bf16, "slower than fp32 for small tiles"
    assert not resolve_compute_for_report(ComputeOptions("cpu", "auto")).is_bf16
    assert resolve_compute_for_report(ComputeOptions("cpu", "bf16")).is_bf16


def test_auto_device_exists() -> None:
    torch.empty(1, device=resolve_compute(ComputeOptions(), tile_size_px=32).device)


def test_negative_seed() -> None:
    with pytest.raises(OptionError, match="seed=-1"):
        SeedOptions(-1)
