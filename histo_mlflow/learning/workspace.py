"""Memory that is lent again and again to what lives no longer than one step of a block; knows nothing of what is put there.

Memory that is handed back to the system must be cleared, page by page, before it is got again, and at the sizes of the first
blocks that takes as long as the work that is done in it.
"""

import threading
from collections.abc import Sequence

import torch
from torch import Tensor


class _Workspace(threading.local):
    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def lend(self, shape: Sequence[int], dtype: torch.dtype, purpose: str) -> Tensor:
        """Return memory ``(n, channels, height, width)`` in channels_last; it holds until the next call for that purpose."""
        n, channels, height, width = shape
        size = n * channels * height * width
        buffer: Tensor | None = self._buffers.get((purpose, dtype))
        if buffer is None or len(buffer) < size:
            buffer = self._buffers[purpose, dtype] = torch.empty(size, dtype=dtype)
        return buffer[:size].view(n, height, width, channels).permute(0, 3, 1, 2)

    def lend_like(self, tensor: Tensor, purpose: str) -> Tensor:
        """Return memory of the shape and type of `tensor`."""
        return self.lend(tensor.shape, tensor.dtype, purpose)

    def release(self) -> None:
        """Give all of it back, for other work is to come."""
        self._buffers.clear()


WORKSPACE = _Workspace()
"""Each thread's own."""
