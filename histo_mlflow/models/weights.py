"""Where a network's first weights come from: nowhere, ImageNet, a file or a model; never one for another silently."""

import os
import urllib.error
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import EfficientNet_B3_Weights

from histo_mlflow.base.plain_values import shorten
from histo_mlflow.errors import SourceNotFoundError, TileFormatError, WeightsUnavailableError
from histo_mlflow.models.checkpoint import DAMAGE, FACTS_KEY, load_plainly, read_facts
from histo_mlflow.models.classifier import TileClassifier

WEIGHT_SOURCES = ("auto", "imagenet", "none")

_HEAD = ("classifier.1.weight", "classifier.1.bias")
_OUR_PREFIX = "backbone."
_MIN_IMAGE_SIZE_PX = 32  # EfficientNet halves the image five times


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """Weights under torchvision's names, or none.

    Attributes:
        tensors: By name.
        origin: What they are, in words.
        classes: What the rows of the head stand for, if that is known.
    """

    tensors: dict[str, Tensor] | None
    origin: str
    classes: tuple[str, ...] | None = None


def read_initial_weights(weights: str, *, is_synthetic: bool) -> InitialWeights:
    """Return the weights that the option `weights` names.

    Args:
        weights: ``auto``, ``imagenet``, ``none`` or a path.
        is_synthetic: Whether the tiles are the demo's; then ``auto`` means ``none``.

    Raises:
        WeightsUnavailableError: ImageNet's weights are not here and can't be fetched.
        SourceNotFoundError: The file does not exist.
        TileFormatError: The file does not hold weights of EfficientNet-B3.
    """
    if weights == "none" or (weights == "auto" and is_synthetic):
        return InitialWeights(None, "random initialisation")
    if weights in {"auto", "imagenet"}:
        return InitialWeights(_fetch_imagenet(), "ImageNet (torchvision EfficientNet_B3_Weights.IMAGENET1K_V1)")
    path = Path(weights)
    if not path.is_file():
        raise SourceNotFoundError(
            f"weights={weights}: no such file; give auto, imagenet, none, a model (models:/..., runs:/..., a run id) or a file"
        )
    return InitialWeights(_read_file(path), f"file {path}", _read_classes(path))


def adopt_weights(network: torch.nn.Module, classes: tuple[str, ...], *, origin: str) -> InitialWeights:
    """Return the weights of a network of ours, be it exported or not, as first weights for another."""
    tensors = {name: tensor.detach() for name, tensor in network.state_dict().items() if name.startswith(_OUR_PREFIX)}
    return InitialWeights(_checked(tensors, origin), origin, classes)


def make_network(initial: InitialWeights, *, classes: tuple[str, ...], tile_size_px: int) -> tuple[TileClassifier, str]:
    """Return a new network for `classes` and a sentence on its weights.

    Rows of the head are taken over by the names of their classes where these are known; else the head is taken over whole if it
    has as many rows, and is new if not. What is new is said in the sentence.
    """
    network = TileClassifier(n_classes=len(classes), tile_size_px=tile_size_px)
    if initial.tensors is None:
        return network, initial.origin
    head, note = _fit_head(initial, {name: network.backbone.state_dict()[name].clone() for name in _HEAD}, classes)
    network.backbone.load_state_dict({**initial.tensors, **head})
    return network, note


def _fit_head(initial: InitialWeights, fresh: dict[str, Tensor], classes: tuple[str, ...]) -> tuple[dict[str, Tensor], str]:
    assert initial.tensors is not None  # the caller has looked
    stored = {name: initial.tensors[name] for name in _HEAD}
    n_stored = len(stored[_HEAD[1]])
    if initial.classes is None:
        if n_stored == len(classes):
            return stored, initial.origin
        return fresh, f"{initial.origin}; its head for {n_stored} classes is replaced by a new one for {len(classes)}"
    if initial.classes == classes:
        return stored, initial.origin
    known = [name for name in classes if name in initial.classes]
    for name in _HEAD:
        for each in known:
            fresh[name][classes.index(each)] = stored[name][initial.classes.index(each)]
    new = " ".join(name for name in classes if name not in known) or "no class"
    return fresh, (
        f"{initial.origin}; its head for {' '.join(initial.classes)} is replaced by a new one for {len(classes)} classes, "
        f"of which {' '.join(known) or 'none'} taken over and {new} new"
    )


def _read_classes(path: Path) -> tuple[str, ...] | None:
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(FACTS_KEY)
            names = None if header is None else read_facts(header).classes
            n_rows = file.get_slice(_OUR_PREFIX + _HEAD[1]).get_shape()[0] if names is not None else 0
    except DAMAGE as error:
        raise TileFormatError(f"weights={path} has a header that can't be read ({_first_line(error)})") from None
    if names is not None and len(names) != n_rows:
        raise TileFormatError(f"weights={path} names {len(names)} classes and has a head for {n_rows}; give a file of a run")
    return names


def _fetch_imagenet() -> dict[str, Tensor]:
    # Behind a firewall a mirror may hold the same file; the hash in its name is checked either way.
    url = os.environ.get("HISTO_IMAGENET_URL") or EfficientNet_B3_Weights.IMAGENET1K_V1.url
    target = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    try:
        tensors = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True, file_name=target.name
        )
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsUnavailableError(
            f"can't fetch ImageNet weights from {url} ({reason}); put that file at {target}, or start without it: weights=none"
        ) from None
    return _checked(tensors, target)


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        is_ours = path.suffix == ".safetensors"
        tensors = load_file(path) if is_ours else load_plainly(path)
    except UnpicklingError:
        raise TileFormatError(f"weights={path} is no weight file, or holds objects and is refused; save a state_dict") from None
    except DAMAGE as error:
        raise TileFormatError(f"weights={path} can't be read ({_first_line(error)}); give a .safetensors or .pth") from None
    return _checked(tensors, path)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]


def _checked(tensors: Any, path: Path | str) -> dict[str, Tensor]:
    """Return the tensors under torchvision's names, whether the file has these or ours."""
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise TileFormatError(f"weights={path} is not a state_dict; save one with torch.save(network.state_dict(), path)")
    plain = {str(name).removeprefix(_OUR_PREFIX): tensor for name, tensor in tensors.items()}
    with torch.device("meta"):
        expected = TileClassifier(n_classes=_n_rows(plain), tile_size_px=_MIN_IMAGE_SIZE_PX).backbone.state_dict()
    wrong = [name for name in expected.keys() | plain.keys() if not _is_like(plain.get(name), expected.get(name))]
    if wrong:
        raise TileFormatError(
            f"weights={path} is not an EfficientNet-B3: {len(wrong)} tensors differ, {shorten(sorted(wrong)[0])} for one"
        )
    return plain


def _n_rows(tensors: dict[str, Tensor]) -> int:
    """Return for how many classes the head is, which alone may differ; 1 where there is none."""
    head = tensors.get(_HEAD[0])
    return int(head.shape[0]) if head is not None and head.ndim == 2 and head.shape[0] > 0 else 1


def _is_like(found: Tensor | None, expected: Tensor | None) -> bool:
    """Return whether a tensor can be copied to where the other is: of a shape, of numbers of a kind, plain and in memory."""
    if found is None or expected is None:
        return False
    is_plain = found.layout is torch.strided and found.device.type == "cpu" and not found.is_quantized
    return is_plain and found.shape == expected.shape and found.is_floating_point() == expected.is_floating_point()
