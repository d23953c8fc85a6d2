"""A tile classifier as LazySlide takes it: copied as it is into the folder that `histo export --to lazyslide` writes.

It reads ``model.pt2`` and ``model.json`` beside it and needs torch alone. A class has what LazySlide's protocols ask for:
`name`, `model`, `columns`, `get_transform`, `to`, `try_compile` and `predict`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

_FOLDER = Path(__file__).resolve().parent


class _Exported:
    """The network of this folder.

    Attributes:
        name: By which LazySlide calls the table that it makes.
        classes: In the order of the probabilities.
        columns: Of the table that `predict` adds to.
        tile_size_px: To cut tiles at, with `microns_per_pixel`: what the model has learnt from. 0 where it takes features.
        microns_per_pixel: None where the model does not know it.
        model: The exported graph, from uint8 ``(n_tiles, height, width, 3)``, or from features, to logits.
    """

    name = "histo_tiles"

    def __init__(self, folder: str | Path = _FOLDER) -> None:
        facts = json.loads((Path(folder) / "model.json").read_text())
        self.classes: tuple[str, ...] = tuple(facts["classes"])
        self.columns: tuple[str, ...] = tuple(f"prob_{name}" for name in self.classes)
        self.tile_size_px: int = facts["tile_size_px"]
        self.microns_per_pixel: float | None = facts["microns_per_pixel"]
        self.model: Any = torch.export.load(Path(folder) / "model.pt2").module()
        self._device = torch.device("cpu")

    def to(self, device: Any) -> Any:
        """Move the network to a device, and return itself."""
        self._device = torch.device(device or "cpu")
        self.model.to(self._device)
        return self

    def try_compile(self, **options: Any) -> None:
        """Let torch compile the network."""
        self.model = torch.compile(self.model, **options)

    @torch.inference_mode()
    def _probabilities(self, given: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
        logits = self.model(given.to(self._device))
        return torch.softmax(logits.float().cpu().double(), dim=1).numpy()


class TileModel(_Exported):
    """For `lazyslide.tl.tile_prediction`: a column for each class, and one with the name of the likeliest."""

    def __init__(self, folder: str | Path = _FOLDER) -> None:
        super().__init__(folder)
        self.columns = (*self.columns, "label")

    def get_transform(self) -> Callable[[Any], torch.Tensor]:
        """Return what makes of a tile ``(height, width, 3)`` uint8 what `predict` takes; the rest is done in the network."""
        return _as_tensor

    def predict(self, image: torch.Tensor, *_: Any, **__: Any) -> dict[str, Any]:
        """Return a column of each name in `columns`, of uint8 tiles ``(n_tiles, 3, height, width)``.

        Raises:
            TypeError: They are not uint8: a transform that scales them was given in place of this model's own.
        """
        if image.dtype != torch.uint8:
            raise TypeError(f"tiles are {image.dtype}; uint8 is needed: leave `transform` out, the network scales them itself")
        probabilities = self._probabilities(image.permute(0, 2, 3, 1).contiguous())
        labels = np.array(self.classes)[probabilities.argmax(axis=1)]
        return dict(zip(self.columns, [*probabilities.T, labels], strict=True))


class FeatureModel(_Exported):
    """For `lazyslide.tl.feature_prediction`, where the model takes features: a number for each class."""

    def get_transform(self) -> None:
        """Return None: features are taken as they are."""
        return

    def predict(self, features: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Return a column for each class, of features ``(n_tiles, n_features)``; where tiles lie says nothing to it."""
        given = torch.from_numpy(np.array(features, dtype=np.float32))
        return dict(zip(self.columns, self._probabilities(given).T, strict=True))


def _as_tensor(tile: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(tile)[..., :3]).permute(2, 0, 1)
