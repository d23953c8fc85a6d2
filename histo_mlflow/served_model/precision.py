"""What fp32 means on a GPU: the same for training, reports and served models."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def in_full_fp32() -> Iterator[None]:
    """Compute in fp32 with all 23 bits of the fraction: cuDNN's convolutions use TF32, with 10, unless told otherwise."""
    settings = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [each.fp32_precision for each in settings]
    for each in settings:
        each.fp32_precision = "ieee"
    try:
        yield
    finally:
        for each, precision in zip(settings, before, strict=True):
            each.fp32_precision = precision
