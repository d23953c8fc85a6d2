"""Where a network's first weights come from: nowhere, ImageNet, a file or a model; never one for another silently."""

import os
import urllib.error
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from histo_mlflow.base.plain_values import reason_of, shorten
from histo_mlflow.errors import SourceNotFoundError, TileFormatError, WeightsUnavailableError
from histo_mlflow.models.backbones import DEFAULT_BACKBONE, Backbone, find_backbone
from histo_mlflow.models.checkpoint import DAMAGE, OUR_PREFIX, load_plainly, read_weights
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """Weights of a backbone under its own names, or none.

    Attributes:
        backbone: Its name.
        tensors: By name.
        origin: What they are, in words.
        classes: What the rows of the head stand for, if that is known.
    """

    backbone: str
    tensors: dict[str, Tensor] | None
    origin: str
    classes: tuple[str, ...] | None = None

    @property
    def are_trained(self) -> bool:
        """Whether anything was learnt before."""
        return self.tensors is not None


def read_initial_weights(weights: str, *, is_synthetic: bool, backbone: str = DEFAULT_BACKBONE) -> InitialWeights:
    """Return the weights that the option `weights` names.

    Args:
        weights: ``auto``, ``imagenet``, ``none`` or a path.
        is_synthetic: Whether the tiles are the demo's; then ``auto`` means ``none``.
        backbone: Whose weights they must be.

    Raises:
        WeightsUnavailableError: ImageNet's weights are not here and can't be fetched.
        SourceNotFoundError: The file does not exist.
        TileFormatError: The file does not hold weights of this backbone.
    """
    if weights == "none" or (weights == "auto" and is_synthetic):
        return InitialWeights(backbone, None, "random initialisation")
    wanted = find_backbone(backbone)
    if weights in {"auto", "imagenet"}:
        return InitialWeights(backbone, _fetch_imagenet(wanted), f"ImageNet ({wanted.weights})")
    path = Path(weights)
    if not path.is_file():
        raise SourceNotFoundError(
            f"weights={weights}: no such file; give auto, imagenet, none, a model (models:/..., runs:/..., a run id) or a file"
        )
    return _read_file(path, wanted)


def adopt_weights(network: torch.nn.Module, facts: ModelFacts, *, origin: str) -> InitialWeights:
    """Return the weights of a trained network, exported or not, as first weights for another."""
    tensors = {name: tensor.detach() for name, tensor in network.state_dict().items() if name.startswith(OUR_PREFIX)}
    return InitialWeights(facts.backbone, _checked(tensors, find_backbone(facts.backbone), origin), origin, facts.classes)


def make_network(initial: InitialWeights, *, classes: tuple[str, ...], tile_size_px: int) -> tuple[TileClassifier, str]:
    """Return a new network for `classes` and a sentence on its weights.

    Rows of the head are taken over by the names of their classes where these are known; else the head is taken over whole if it
    has as many rows, and is new if not. What is new is said in the sentence.
    """
    network = TileClassifier(n_classes=len(classes), tile_size_px=tile_size_px, backbone=initial.backbone)
    if initial.tensors is None:
        return network, initial.origin
    head, note = _fit_head(initial, network, classes)
    network.backbone.load_state_dict({**initial.tensors, **head})
    return network, note


def _fit_head(initial: InitialWeights, network: TileClassifier, classes: tuple[str, ...]) -> tuple[dict[str, Tensor], str]:
    """Return what takes the place of the stored head, each tensor with a row for every class, and a sentence on it."""
    stored, head = initial.tensors or {}, find_backbone(initial.backbone).head
    n_stored = len(stored[f"{head}.weight"])
    if initial.classes == classes or (initial.classes is None and n_stored == len(classes)):
        return {}, initial.origin
    fresh = {name: rows.clone() for name, rows in network.backbone.state_dict().items() if name.startswith(f"{head}.")}
    if initial.classes is None:
        return fresh, f"{initial.origin}; its head for {n_stored} classes is replaced by a new one for {len(classes)}"
    known = [name for name in classes if name in initial.classes]
    for name, rows in fresh.items():
        for each in known:
            rows[classes.index(each)] = stored[name][initial.classes.index(each)]
    new = " ".join(name for name in classes if name not in known) or "no class"
    return fresh, (
        f"{initial.origin}; its head for {' '.join(initial.classes)} is replaced by a new one for {len(classes)} classes, "
        f"of which {' '.join(known) or 'none'} taken over and {new} new"
    )


def _fetch_imagenet(backbone: Backbone) -> dict[str, Tensor]:
    # Behind a firewall a mirror may hold the same file; the hash in its name is checked either way.
    url = os.environ.get("HISTO_IMAGENET_URL") or backbone.url
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
    return _checked(tensors, backbone, target)


def _read_file(path: Path, backbone: Backbone) -> InitialWeights:
    facts = None
    try:
        if path.suffix == ".safetensors":
            tensors, facts = read_weights(path)
        else:
            tensors = load_plainly(path)
    except UnpicklingError:
        raise TileFormatError(
            f"weights={path} is not a weight file, or holds objects and is refused; save a state_dict"
        ) from None
    except DAMAGE as error:
        raise TileFormatError(f"weights={path} can't be read ({reason_of(error)}); give a .safetensors or .pth") from None
    classes = None if facts is None else facts.classes
    return InitialWeights(backbone.name, _checked(tensors, backbone, path), f"file {path}", classes)


def _checked(tensors: Any, backbone: Backbone, path: Path | str) -> dict[str, Tensor]:
    """Return the tensors under the backbone's own names, whether the file has these or ours."""
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise TileFormatError(f"weights={path} is not a state_dict; save one with torch.save(network.state_dict(), path)")
    plain = {str(name).removeprefix(OUR_PREFIX): tensor for name, tensor in tensors.items()}
    head = plain.get(f"{backbone.head}.weight")
    # For how many classes the head is may differ, and nothing else.
    expected = backbone.outline(len(head) if head is not None and head.ndim == 2 and len(head) else 1)
    wrong = [name for name in expected.keys() | plain.keys() if not _is_like(plain.get(name), expected.get(name))]
    if wrong:
        raise TileFormatError(
            f"weights={path} does not fit {backbone.name}: {len(wrong)} tensors differ, {shorten(sorted(wrong)[0])} for one"
        )
    return plain


def _is_like(found: Tensor | None, expected: Tensor | None) -> bool:
    """Return whether a tensor can be copied to where the other is: of a shape, of numbers of a kind, plain and in memory."""
    if found is None or expected is None:
        return False
    is_plain = found.layout is torch.strided and found.device.type == "cpu" and not found.is_quantized
    return is_plain and found.shape == expected.shape and found.is_floating_point() == expected.is_floating_point()
