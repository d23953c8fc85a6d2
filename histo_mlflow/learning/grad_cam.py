"""Where in a tile the evidence for a class lies: Grad-CAM on the last convolution."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from histo_mlflow.models.classifier import TileClassifier

_BATCH = 8


def grad_cam(
    network: TileClassifier, tiles: NDArray[np.uint8], classes: NDArray[np.int64], *, device: torch.device
) -> NDArray[np.float32]:
    """Return a map ``(n_tiles, height, width)`` of 0 to 1 per tile: what speaks for its class in `classes` ``(n_tiles,)``.

    Source: Selvaraju et al. 2017, "Grad-CAM": the maps of the last convolution, weighted with the mean gradient of the class's
    logit, and only what speaks for the class. A map without any such evidence is 0 throughout. The maps are coarse, a
    thirty-second of the tile's edge, and enlarged bilinearly; they show where, not why.

    Raises:
        ValueError: The backbone of `network` has no feature maps.
    """
    pooling = network.pooling
    if pooling is None:
        raise ValueError(f"{network.backbone_name} has no feature maps")
    network = network.to(device).eval()
    kept: list[Tensor] = []
    handle = pooling.register_forward_pre_hook(lambda _module, inputs: kept.append(inputs[0]))
    maps = [np.zeros((0, *tiles.shape[1:3]), np.float32)]
    try:
        for start in range(0, len(tiles), _BATCH):
            kept.clear()
            batch = torch.from_numpy(np.array(tiles[start : start + _BATCH])).to(device)
            chosen = torch.from_numpy(classes[start : start + _BATCH]).to(device)
            with torch.enable_grad():
                logits = network(batch)
                (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), kept[0])
            evidence = (gradient.mean(dim=(2, 3), keepdim=True) * kept[0].detach()).sum(dim=1, keepdim=True).relu()
            evidence = evidence / evidence.amax(dim=(2, 3), keepdim=True).clamp_min(torch.finfo(evidence.dtype).tiny)
            enlarged = functional.interpolate(evidence, tiles.shape[1:3], mode="bilinear", align_corners=False)
            maps.append(enlarged[:, 0].float().cpu().numpy())
    finally:
        handle.remove()
    return np.concatenate(maps)
