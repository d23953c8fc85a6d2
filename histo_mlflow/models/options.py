"""What can be asked of a network: its backbone, first weights, input size, other formats; imports no torch."""

from dataclasses import dataclass

from histo_mlflow.errors import OptionError
from histo_mlflow.options import MODEL, Options, option

TORCH = "torch"
ONNX, TORCHSCRIPT, OPENVINO, OPENVINO_INT8 = "onnx", "torchscript", "openvino", "openvino-int8"
WSINFER, LAZYSLIDE = "wsinfer", "lazyslide"
FORMATS = (ONNX, TORCHSCRIPT, OPENVINO, OPENVINO_INT8, WSINFER, LAZYSLIDE)

DEFAULT_BACKBONE = "torchvision:efficientnet_b3"
_FEATURES = "features:"
GRAPH_SUFFIXES = (".pt", ".pt2")
"""Of files that hold a network and not only its weights."""

_MIN_IMAGE_SIZE_PX = 32  # convolutional networks of this kind halve the image five times


def features_name(n_features: int) -> str:
    """Return the name of the backbone that stands for features which were made before."""
    return f"{_FEATURES}{n_features}"


def n_features_of(backbone: str) -> int:
    """Return how many features of each tile a model takes whose backbone stands for them; 0 if it takes tiles themselves."""
    return int(backbone.removeprefix(_FEATURES)) if backbone.startswith(_FEATURES) else 0


@dataclass(frozen=True)
class NetworkOptions(Options):
    """Network: backbone, first weights and input size."""

    backbone: str = option(
        DEFAULT_BACKBONE,
        "Network to learn with: torchvision:NAME, timm:NAME, hub:ORG/NAME (timm's networks on the Hugging Face hub, or "
        "hub:FOLDER), lite0, or a file with a network (.pt2, .pt); docs/backbones.md says which to take.",
    )
    weights: str = option(
        "auto",
        "Start from: auto (imagenet for real tiles, none for demo), imagenet (the published weights of the backbone), none "
        "(random), a model (models:/histo-b3/Production, a run id, runs:/RUN_ID/checkpoints/epoch_007.safetensors) or a file: "
        "a checkpoint (.safetensors) or weights of the backbone (.safetensors, .pth).",
        names=MODEL,
    )
    image_size: int = option(0, "Edge length in pixels to which tiles are resized on the device; 0 = as stored.", at_least=0)

    def __post_init__(self) -> None:
        """Raise `OptionError` for an image that the convolutions would shrink to nothing too."""
        super().__post_init__()
        if 0 < self.image_size < _MIN_IMAGE_SIZE_PX:
            raise OptionError(f"image_size={self.image_size}: must be 0 (as stored) or at least {_MIN_IMAGE_SIZE_PX} px")


@dataclass(frozen=True)
class RuntimeOptions(Options):
    """Runtime."""

    runtime: str = option(
        TORCH,
        "`torch`, or on a CPU `onnx` (ONNX Runtime), `openvino`, which with precision=bf16 is the fastest from about a "
        "thousand tiles on, or `openvino-int8`, in integers of 8 bits, which is faster still and needs calibration_data; all "
        "three take tiles of the model's own size only.",
        choices=(TORCH, ONNX, OPENVINO, OPENVINO_INT8),
    )
    calibration_data: str = option(
        "none",
        "Labelled tiles for runtime=openvino-int8, as in `train --data`: some calibrate it, and on the others it is compared "
        "with the model. Of tiles that the model has learnt from, those that it was validated on are taken. `none`: these, if "
        "they still are where training found them.",
    )
