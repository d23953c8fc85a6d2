"""A file with a network: ``encoder.pt2`` (exported program) or ``encoder.pt`` (TorchScript), its facts in ``encoder.json``.

What it holds takes normalised pixels ``(n_tiles, 3, height, width)``, any number of tiles, and returns features ``(n_tiles,
n_features)``; the linear layer behind it is ours. So an encoder whose code nobody has packaged can be used, without its code.
"""

import io
import json
import re
import warnings
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch._export.converter import TS2EPConverter

from histo_mlflow.base.plain_values import build_plain, parse_json, read_small, reason_of, shorten
from histo_mlflow.errors import OptionError
from histo_mlflow.models.backbone import BICUBIC, BILINEAR, Backbone, Pixels
from histo_mlflow.models.licence import Licence
from histo_mlflow.models.weight_files import WeightFile

_MAX_FACTS_BYTES = 2**16
_PROGRAM = ".pt2"
# What torch raises for files that are not networks, and networks for tiles that they don't take.
_DAMAGE = (
    RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, OSError, EOFError, zipfile.BadZipFile,
    UnpicklingError,
)  # fmt: skip
# What an archive of a program consists of; custom objects and compiled code are not among it.
_RECORD = re.compile(
    r"[^/]+/(data/weights/weight_\d+|data/constants/tensor_\d+|data/(weights|constants)/model_\w+_config\.json"
    r"|models/model\.json|data/sample_inputs/model\.pt|archive_format|archive_version|byteorder|(\.data/)?version"
    r"|\.data/serialization_id)"
)


@dataclass(frozen=True)
class GraphFacts:
    """What the json beside the file says.

    Attributes:
        size_px: Edge length that the network expects.
        mean: Of each channel, for values from 0 to 1.
        std: Of each channel.
        interpolation: ``bilinear`` or ``bicubic``.
        licence: Its name and conditions.
        may_be_passed_on: Whether a model that holds the network may be handed to others.
    """

    size_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = BICUBIC
    licence: str = "not stated"
    may_be_passed_on: bool = False


@dataclass(frozen=True)
class GraphFile(WeightFile):
    """The file itself, which holds its weights.

    Attributes:
        path: Of the file.
    """

    path: Path

    @property
    def url(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def place(self) -> str:
        """The path."""
        return str(self.path)

    def find(self) -> Path | None:
        """Return the path if there is a file."""
        return self.path if self.path.is_file() else None

    def download(self) -> Path:
        """Raise `FileNotFoundError`: nobody but the user has it."""
        raise FileNotFoundError("there is no such file")


class Encoder(nn.Module):
    """A network from a file, which stays as it was exported, and a linear layer behind it.

    Attributes:
        graph: From normalised pixels to features.
        head: From features to logits.
    """

    def __init__(self, graph: nn.Module, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.graph = graph
        self.head = nn.Linear(n_features, n_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits ``(n_tiles, n_classes)``."""
        logits: Tensor = self.head(self.graph(pixels))
        return logits

    def train(self, mode: bool = True) -> "Encoder":
        """Set the mode of the head; an exported program has one mode only."""
        self.training = mode
        self.head.train(mode)
        return self


def find(network: str) -> Backbone:
    """Return the network in a file; raises `OptionError` if there is none, or no facts beside it."""
    path = Path(network)
    try:
        facts = build_plain(GraphFacts, parse_json(read_small(path.with_suffix(".json"), max_bytes=_MAX_FACTS_BYTES)))
        pixels = Pixels(facts.size_px, facts.mean, facts.std, facts.interpolation)
        if len(facts.mean) != 3 or len(facts.std) != 3 or facts.interpolation not in {BILINEAR, BICUBIC} or facts.size_px < 1:
            raise ValueError("mean and std must have 3 numbers, interpolation be bilinear or bicubic, size_px positive")
    except (OSError, ValueError) as error:
        raise OptionError(
            f"backbone={shorten(network)}: can't read its facts in {path.with_suffix('.json')} ({reason_of(error)}); "
            'give {"size_px": 224, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "licence": "MIT", "may_be_passed_on": true}'
        ) from None
    build = partial(_build, path)
    return Backbone(
        network,
        build,
        pixels,
        GraphFile(f"the network in {path}", Licence(facts.licence, facts.may_be_passed_on), path),
        head="head",
        n_features=_features_of(_read(path, facts.size_px), path, facts.size_px),
        comes_with_weights=True,
    )


def _build(path: Path, n_classes: int, size_px: int) -> nn.Module:
    graph = _read(path, size_px)
    return Encoder(graph, _features_of(graph, path, size_px), n_classes)


def _read(path: Path, size_px: int) -> nn.Module:
    try:
        # On the CPU also where an outline without storage is asked for; torch warns of its own parts.
        with torch.device("cpu"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.suffix == _PROGRAM:
                _check_records(path)
                return torch.export.load(path).module()
            script = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
            # As a program it can become a part of others, which TorchScript can't; its weights are constants then.
            program = TS2EPConverter(script, (torch.zeros((2, 3, size_px, size_px)),)).convert().module()
            for tensor in program.buffers():
                tensor.requires_grad_(False)
            return program
    except _DAMAGE as error:
        raise OptionError(
            f"backbone={path} can't be read ({reason_of(error)}); give TorchScript (.pt) or an exported program"
        ) from None


def _check_records(path: Path) -> None:
    """Raise `ValueError` or `UnpicklingError` where the archive holds more than a graph and tensors: torch would run it."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        strange = [name for name in names if not _RECORD.fullmatch(name)]
        if strange or len(set(names)) < len(names):
            raise ValueError(f"it holds more than a graph and tensors, {shorten([*strange, 'a name twice'][0])} for one")
        for name in names:
            if name.endswith("_config.json") and not _names_plain_tensors(json.loads(archive.read(name))):
                raise ValueError(f"{shorten(name)} names pickled objects")
            if name.endswith(".pt"):
                torch.load(io.BytesIO(archive.read(name)), map_location="cpu", weights_only=True)


def _names_plain_tensors(config: Any) -> bool:
    payloads = config["config"].values()
    return all(each["path_name"].startswith(("weight_", "tensor_")) and each["use_pickle"] is False for each in payloads)


def _features_of(graph: nn.Module, path: Path, size_px: int) -> int:
    """Return how many features it gives for tiles of an edge length, tried with two of them."""
    try:
        with torch.inference_mode():
            features = graph(torch.zeros((2, 3, size_px, size_px), device="cpu"))
    except _DAMAGE as error:
        raise OptionError(
            f"backbone={path}: takes no 2 tiles of {size_px} px ({reason_of(error)}); give image_size as its facts have it, "
            "and export it for any number of tiles"
        ) from None
    if not isinstance(features, Tensor) or features.ndim != 2 or not features.is_floating_point():
        raise OptionError(f"backbone={path}: must return features (n_tiles, n_features), a tensor of floats")
    return int(features.shape[1])
