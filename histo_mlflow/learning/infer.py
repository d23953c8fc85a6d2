"""The only way from tiles to logits; validation, scoring and prediction all come through here."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from histo_mlflow.base.progress import Bar
from histo_mlflow.learning.batches import TileSource
from histo_mlflow.learning.compute import Compute
from histo_mlflow.models.classifier import fold_batch_norms
from histo_mlflow.served_model.precision import in_full_fp32
from histo_mlflow.tiles.pixels import Pixels

_MAX_BATCH_TILES = 128
_MAX_BATCH_ROWS = 8192  # of features
_MAX_BATCH_PIXELS_ON_CPU = 2**21  # 41 tiles of 224 px: more are no faster there, and cost 17 MB of memory each in fp32


def infer(
    network: nn.Module,
    images: Pixels,
    *,
    rows: NDArray[np.int64] | None = None,
    compute: Compute,
    batch_size: int | None = None,
    description: str | None = "infer",
) -> NDArray[np.float32]:
    """Return logits ``(n_rows, n_classes)`` in the order of `rows`, or of `images` if no rows are given.

    Args:
        network: A module from tiles to logits, in evaluation mode.
        images: ``(n_tiles, height, width, 3)`` uint8, or features ``(n_tiles, n_features)`` float32.
        rows: Which tiles, in which order.
        compute: Device and precision; the network must be on that device.
        batch_size: Tiles per forward pass; changes speed and memory, not the result (to rounding). Chosen if not given.
        description: What the progress bar says; None for no bar.
    """
    if len(images if rows is None else rows) == 0:
        with torch.inference_mode():
            return np.zeros((0, network(torch.from_numpy(images[:1]).to(compute.device)).shape[1]), dtype=np.float32)
    batches = infer_batches(network, images, rows=rows, compute=compute, batch_size=batch_size, description=description)
    return torch.cat(list(batches)).cpu().numpy()


def infer_batches(
    network: nn.Module,
    images: Pixels,
    *,
    rows: NDArray[np.int64] | None = None,
    compute: Compute,
    batch_size: int | None = None,
    description: str | None = "infer",
) -> Iterator[Tensor]:
    """Yield what `infer` returns batch by batch, on the device: for more than memory holds."""
    chosen = np.arange(len(images)) if rows is None else rows
    step = batch_size or choose_batch_size(network, images.shape[1:], compute.device)
    batches = [chosen[start : start + step] for start in range(0, len(chosen), step)]
    loaded = TileSource(images, compute.device).load(batches)
    bar = Bar(loaded, total=len(batches), desc=description, disable=description is None)
    yield from infer_stream(network, bar, compute)


def infer_stream(network: nn.Module, loaded: Iterable[Tensor], compute: Compute) -> Iterator[Tensor]:
    """Yield what `infer` returns, on the device, for each batch that comes: for tiles that no array holds.

    Args:
        network: As for `infer`; one whose batch norms are folded already (`Model.folded`) is not folded again.
        loaded: Batches of tiles ``(n_tiles, height, width, 3)`` uint8 on the device, as `load_ahead` gives them;
            `choose_batch_size` says how many tiles one should hold.
        compute: Device and precision.
    """
    # Of a network that came from a file the layout is torch's own, with which a CPU takes twice as long.
    with torch.inference_mode(False):  # a network without batch norms is the caller's own, who may want its gradients
        folded = fold_batch_norms(network).to(memory_format=torch.channels_last)
    for tiles in loaded:
        with torch.inference_mode(), in_full_fp32(), compute.autocast():
            said = folded(tiles).float()
        yield said


def choose_batch_size(network: nn.Module, shape: Sequence[int], device: torch.device) -> int:
    """Return how many tiles or features of that shape go through the network at once."""
    if len(shape) == 1:
        return _MAX_BATCH_ROWS
    if device.type != "cpu":
        return _MAX_BATCH_TILES
    size_px: int = max(shape[0], getattr(network, "tile_size_px", 1))
    return max(1, min(_MAX_BATCH_TILES, _MAX_BATCH_PIXELS_ON_CPU // size_px**2))


def probabilities_of(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the softmax of logits ``(..., n_classes)``, over the last axis; rows sum to 1 in double precision."""
    return torch.softmax(torch.from_numpy(logits).double(), dim=-1).numpy()


def cross_entropy_of(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the mean negative log likelihood in nats, over all tiles at once and not over batches."""
    log_probabilities = torch.log_softmax(torch.from_numpy(logits).double(), dim=1).numpy()
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())
