"""A network in the formats of other runtimes: writes each but that of 8 bits (`quantized.py`), and runs what was written.

Except for WSInfer's, every format takes what the network itself takes, uint8 ``(n_tiles, height, width, 3)`` with any number
of tiles, and gives logits; height and width are those of the model, but for LazySlide's (`lazyslide_folder.py`). The runtimes
are optional and are imported where they are used.
"""

import importlib
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from histo_mlflow.errors import OptionError
from histo_mlflow.models.backbones import find_backbone
from histo_mlflow.models.classifier import TileClassifier, fold_batch_norms
from histo_mlflow.models.lazyslide_folder import CLASS_FILE, open_lazyslide, write_lazyslide
from histo_mlflow.models.options import LAZYSLIDE, ONNX, OPENVINO, OPENVINO_INT8, TORCHSCRIPT, WSINFER

_FILES = {
    ONNX: "model.onnx",
    TORCHSCRIPT: "model.pt",
    OPENVINO: "model.xml",
    OPENVINO_INT8: "model.xml",
    WSINFER: "torchscript_model.pt",
    LAZYSLIDE: CLASS_FILE,
}
_NEEDED = {
    ONNX: ("onnx", "onnxscript", "onnxruntime"),
    TORCHSCRIPT: (),
    OPENVINO: ("onnx", "onnxscript", "openvino"),
    OPENVINO_INT8: ("onnx", "onnxscript", "openvino", "nncf"),
    WSINFER: ("wsinfer_zoo",),
    LAZYSLIDE: (),
}

# uint8 (n_tiles, height, width, 3) to logits (n_tiles, n_classes)
Logits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def open_openvino() -> Any:
    """Return the package, kept (like NNCF) from reporting usage to Google Analytics, which it does without asking."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")


def file_of(format_name: str) -> str:
    """Return the name of the file that is opened of an exported folder."""
    return _FILES[format_name]


def require(format_name: str) -> None:
    """Raise an `OptionError` that says what to install unless the packages for a format are here."""
    for name in _NEEDED[format_name]:
        try:
            open_openvino() if name == "openvino" else importlib.import_module(name)
        except ImportError:
            raise OptionError(f"{format_name} needs the package {name}: python -m pip install -e '.[export]'") from None


def write(
    network: TileClassifier, format_name: str, folder: Path, *, classes: Sequence[str], microns_per_pixel: float | None
) -> None:
    """Write `network` in full precision into an empty folder.

    Args:
        network: In evaluation mode on the CPU; batch norms are folded into the convolutions of the copy that is written.
        format_name: One of `FORMATS`, but not `OPENVINO_INT8`.
        folder: Exists, and gets the files.
        classes: Names in the order of the logits; only WSInfer's and LazySlide's formats can hold them.
        microns_per_pixel: Of tiles of the network's size, which WSInfer's format must have; likewise.
    """
    folded = fold_batch_norms(network)
    assert isinstance(folded, TileClassifier)
    if format_name == LAZYSLIDE:
        write_lazyslide(folded, folder, classes=classes, microns_per_pixel=microns_per_pixel)
        return
    size = network.tile_size_px
    file = folder / _FILES[format_name]
    module: _Normalized = _AtOneSize(folded)
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    if network.takes_features:
        module, example = _OfFeatures(folded), torch.zeros((2, network.n_features))
    if format_name == WSINFER:
        module, example = _Normalized(folded), torch.zeros((2, 3, size, size))
        assert microns_per_pixel is not None
        config = _wsinfer_config(network, classes, microns_per_pixel)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        # torch's exporters warn of their own deprecated parts.
        warnings.simplefilter("ignore")
        if format_name in {TORCHSCRIPT, WSINFER}:
            torch.jit.trace(module, example, check_trace=False).save(str(file))  # type: ignore[no-untyped-call]
            return
        onnx_file = folder / _FILES[ONNX]
        torch.onnx.export(
            module,
            (example,),
            onnx_file,
            input_names=["tiles"],
            output_names=["logits"],
            dynamic_shapes={"tiles": {0: torch.export.Dim("n_tiles")}},
            external_data=False,
            verbose=False,
        )
        if format_name == OPENVINO:
            openvino = open_openvino()
            openvino.save_model(openvino.convert_model(onnx_file), file, compress_to_fp16=False)
            onnx_file.unlink()


def open_written(format_name: str, folder: Path, *, precision: str = "fp32") -> Logits:
    """Return what runs the files that were written to `folder`, on the CPU; `precision` ``bf16`` only with OpenVINO."""
    file = str(folder / _FILES[format_name])
    if format_name == ONNX:
        session: Any = importlib.import_module("onnxruntime").InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda tiles: np.asarray(session.run(None, {"tiles": tiles})[0], dtype=np.float32)
    if format_name in {OPENVINO, OPENVINO_INT8}:
        hints = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32", "PERFORMANCE_HINT": "LATENCY"}
        compiled: Any = open_openvino().Core().compile_model(file, "CPU", hints)
        return lambda tiles: np.array(compiled(tiles)[0], dtype=np.float32)
    if format_name == LAZYSLIDE:
        return open_lazyslide(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.load(file)  # type: ignore[no-untyped-call]
    prepare = _wsinfer_transform(folder) if format_name == WSINFER else torch.tensor  # a copy: tiles of a map are not writable

    @torch.inference_mode()
    def run(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = script(prepare(tiles)).float().numpy()
        return logits

    return run


class RuntimeNetwork(nn.Module):
    """A written network in the place of a module: what infers with one infers with the other."""

    def __init__(self, run: Logits, tile_size_px: int) -> None:
        super().__init__()
        self._run = run
        self.tile_size_px = tile_size_px

    def forward(self, tiles: Tensor) -> Tensor:
        """Return logits ``(n_tiles, n_classes)`` of uint8 tiles ``(n_tiles, height, width, 3)`` of the model's own size."""
        if tiles.ndim == 4 and tuple(tiles.shape[1:3]) != (self.tile_size_px, self.tile_size_px):
            raise OptionError(
                f"this runtime takes tiles of {self.tile_size_px} px, these are {tiles.shape[2]} x {tiles.shape[1]}; "
                "use runtime=torch, which resizes them"
            )
        return torch.from_numpy(self._run(tiles.contiguous().numpy()))


class _Normalized(nn.Module):
    """From normalised float ``(n_tiles, 3, height, width)``, as WSInfer and QuPath prepare tiles, to logits."""

    def __init__(self, network: TileClassifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network.backbone(pixels) / self.network.temperature
        return logits


class _OfFeatures(_Normalized):
    """From features ``(n_tiles, n_features)`` to logits."""

    def forward(self, tiles: Tensor) -> Tensor:
        return super().forward(tiles)


class _AtOneSize(_Normalized):
    """The classifier without resizing and without its check of the type, which are beyond what runtimes have in common."""

    def forward(self, tiles: Tensor) -> Tensor:
        return super().forward(tiles.permute(0, 3, 1, 2) * self.network.scale + self.network.shift)


def _wsinfer_config(network: TileClassifier, classes: Sequence[str], microns_per_pixel: float) -> dict[str, Any]:
    """Return a config.json after the schema that wsinfer-zoo publishes (its version 1.0), checked against it."""
    backbone = find_backbone(network.backbone_name)
    config = {
        "spec_version": "1.0",
        "architecture": backbone.name.rpartition(":")[2],
        "num_classes": len(classes),
        "class_names": list(classes),
        "patch_size_pixels": network.tile_size_px,
        "spacing_um_px": microns_per_pixel,
        "transform": [
            {"name": "Resize", "arguments": {"size": network.tile_size_px}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": list(backbone.pixels.mean), "std": list(backbone.pixels.std)}},
        ],
    }
    client: Any = importlib.import_module("wsinfer_zoo.client")
    client.ModelConfiguration.from_dict(config)
    return config


def _wsinfer_transform(folder: Path) -> Callable[[NDArray[np.uint8]], Tensor]:
    """Return what does to tiles as they come what WSInfer does after its config.json."""
    from PIL import Image
    from torchvision import transforms

    steps = json.loads((folder / "config.json").read_text())["transform"]
    compose = transforms.Compose([getattr(transforms, step["name"])(**step.get("arguments", {})) for step in steps])
    return lambda tiles: torch.stack([compose(Image.fromarray(tile)) for tile in tiles])
