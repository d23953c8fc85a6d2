"""Where a network's first weights come from: nowhere, who published them, a file or a model; never one for another silently."""

from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from histo_mlflow.base.plain_values import reason_of, shorten
from histo_mlflow.errors import OptionError, SourceNotFoundError, TileFormatError
from histo_mlflow.models.backbone import Backbone, Tensors
from histo_mlflow.models.backbones import DEFAULT_BACKBONE, find_backbone
from histo_mlflow.models.checkpoint import DAMAGE, OUR_PREFIX, load_plainly, read_weights
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.models.licence import NOBODYS, Licence
from histo_mlflow.models.options import n_features_of
from histo_mlflow.models.parts import tensors_of
from histo_mlflow.models.weight_files import WeightFile, checked_sha256

_PUBLISHED = {"auto", "imagenet"}


@dataclass(frozen=True, eq=False)
class InitialWeights:
    """Weights of a backbone under its own names, or none.

    Attributes:
        backbone: Its name.
        tensors: By name; those of the head may be missing.
        origin: What they are, in words.
        classes: What the rows of the head stand for, if that is known.
        size_px: Edge length of the input that they were made for.
        sha256: Of the file that held them, or "".
        licence: Under which they were published.
    """

    backbone: str
    tensors: Tensors | None
    origin: str
    classes: tuple[str, ...] | None = None
    size_px: int = 0
    sha256: str = ""
    licence: Licence = NOBODYS

    @property
    def are_trained(self) -> bool:
        """Whether anything was learnt before: these, or what the network is built with."""
        return self.tensors is not None or self.sha256 != ""


def read_initial_weights(weights: str, *, is_synthetic: bool, backbone: str = DEFAULT_BACKBONE) -> InitialWeights:
    """Return the weights that the option `weights` names.

    Args:
        weights: ``auto``, ``imagenet``, ``none`` or a path.
        is_synthetic: Whether the tiles are the demo's; then ``auto`` means ``none``.
        backbone: Whose weights they must be.

    Raises:
        WeightsUnavailableError: The published weights are not here and can't be fetched.
        SourceNotFoundError: The file does not exist.
        TileFormatError: The file does not hold weights of this backbone.
        OptionError: There is no such backbone, or nobody has published weights of it.
    """
    wanted = find_backbone(backbone)
    if wanted.comes_with_weights and weights in {*_PUBLISHED, "none"}:
        assert wanted.weights is not None
        digest = checked_sha256(wanted.weights.fetch())
        return InitialWeights(backbone, None, wanted.weights.words, sha256=digest, licence=wanted.weights.licence)
    if n_features_of(backbone):
        return InitialWeights(backbone, None, "none; tiles come as features, and the head is new")
    if weights == "none" or (weights == "auto" and is_synthetic):
        return InitialWeights(backbone, None, "random initialisation")
    if weights in _PUBLISHED:
        return _read_published(wanted)
    path = Path(weights)
    if not path.is_file():
        raise SourceNotFoundError(
            f"weights={weights}: no such file; give auto, imagenet, none, a model (models:/..., runs:/..., a run id) or a file"
        )
    return _read_file(path, wanted)


def find_missing(weights: str, *, is_synthetic: bool, backbone: str) -> WeightFile | None:
    """Return the file that `read_initial_weights` would have to fetch, if any."""
    published = find_backbone(backbone).weights
    is_wanted = weights == "imagenet" or (weights == "auto" and not is_synthetic)
    return published if is_wanted and published is not None and published.find() is None else None


def adopt_weights(network: torch.nn.Module, facts: ModelFacts, *, origin: str) -> InitialWeights:
    """Return the weights of a trained network, exported or not, as first weights for another."""
    found = tensors_of(network, facts.backbone)
    tensors = {name: tensor.detach() for name, tensor in found.items() if name.startswith(OUR_PREFIX)}
    return _adopted(tensors, facts, origin)


def make_network(initial: InitialWeights, *, classes: tuple[str, ...], tile_size_px: int) -> tuple[TileClassifier, str]:
    """Return a new network for `classes` and a sentence on its weights.

    Rows of the head are taken over by the names of their classes where these are known; else the head is taken over whole if it
    has as many rows, and is new if not. What is new is said in the sentence.
    """
    network = TileClassifier(n_classes=len(classes), tile_size_px=tile_size_px, backbone=initial.backbone)
    if initial.tensors is None:
        return network, initial.origin
    head, note = _fit_head(initial, network, classes)
    tensors = find_backbone(initial.backbone).resized(initial.tensors, initial.size_px, tile_size_px)
    network.backbone.load_state_dict({**tensors, **head})
    return network, note


def _fit_head(initial: InitialWeights, network: TileClassifier, classes: tuple[str, ...]) -> tuple[Tensors, str]:
    """Return what takes the place of the stored head, each tensor with a row for every class, and a sentence on it."""
    stored, head = initial.tensors or {}, find_backbone(initial.backbone).head
    fresh = {name: rows.clone() for name, rows in network.backbone.state_dict().items() if name.startswith(f"{head}.")}
    if f"{head}.weight" not in stored:
        return fresh, f"{initial.origin}, with a new head for {len(classes)} classes"
    n_stored = len(stored[f"{head}.weight"])
    if initial.classes == classes or (initial.classes is None and n_stored == len(classes)):
        return {}, initial.origin
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


def _read_published(wanted: Backbone) -> InitialWeights:
    published = wanted.weights
    if published is None:
        raise OptionError(f"weights: nobody has published any of {wanted.name}; give weights=FILE, or weights=none")
    file = published.fetch()
    digest = checked_sha256(file)
    tensors = _checked(_open(file)[0], wanted, wanted.pixels.size_px, file)
    return InitialWeights(
        wanted.name, tensors, published.words, size_px=wanted.pixels.size_px, sha256=digest, licence=published.licence
    )


def _read_file(path: Path, wanted: Backbone) -> InitialWeights:
    tensors, facts = _open(path)
    digest = checked_sha256(path)
    if facts is None:
        size_px, licence = wanted.pixels.size_px, NOBODYS if wanted.weights is None else wanted.weights.licence
        plain = _checked(tensors, wanted, size_px, path)
        return InitialWeights(wanted.name, plain, f"file {path}", size_px=size_px, sha256=digest, licence=licence)
    if facts.backbone != wanted.name:
        raise OptionError(
            f"weights={path} are those of a {shorten(facts.backbone)}; give backbone={shorten(facts.backbone)} too"
        )
    return replace(_adopted(tensors, facts, f"file {path}"), sha256=digest)


def _adopted(tensors: Tensors, facts: ModelFacts, origin: str) -> InitialWeights:
    size_px, licence = facts.tile_size_px, Licence(facts.licence, facts.may_be_passed_on)
    plain = _checked(tensors, find_backbone(facts.backbone), size_px, origin)
    return InitialWeights(facts.backbone, plain, origin, facts.classes, size_px, facts.weights_origin_sha256, licence)


def _open(path: Path) -> tuple[Any, ModelFacts | None]:
    """Return what a file of weights holds, and the facts of a checkpoint."""
    try:
        return read_weights(path) if path.suffix == ".safetensors" else (load_plainly(path), None)
    except UnpicklingError:
        raise TileFormatError(
            f"weights={path} is not a weight file, or holds objects and is refused; save a state_dict"
        ) from None
    except DAMAGE as error:
        raise TileFormatError(f"weights={path} can't be read ({reason_of(error)}); give a .safetensors or .pth") from None


def _checked(tensors: Any, backbone: Backbone, size_px: int, path: Path | str) -> Tensors:
    """Return the tensors under the backbone's own names, whether the file has these, ours or those of their authors."""
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise TileFormatError(f"weights={path} is not a state_dict; save one with torch.save(network.state_dict(), path)")
    plain = {str(name).removeprefix(OUR_PREFIX): tensor for name, tensor in tensors.items()}
    wrong = _misfits(plain, backbone, size_px)
    if wrong and backbone.convert is not None:
        try:
            converted = backbone.convert(plain)
        except DAMAGE:
            converted = plain
        if not _misfits(converted, backbone, size_px):
            return converted
    if wrong:
        raise TileFormatError(
            f"weights={path} does not fit {backbone.name}: {len(wrong)} tensors differ, {shorten(sorted(wrong)[0])} for one"
        )
    return plain


def _misfits(found: Tensors, backbone: Backbone, size_px: int) -> list[str]:
    """Return the names of tensors that are missing, or of another form; of the head the rows may be any, or all missing."""
    head = found.get(f"{backbone.head}.weight")
    expected = backbone.outline(len(head) if head is not None and head.ndim == 2 and len(head) else 1, size_px)
    if not any(name.startswith(f"{backbone.head}.") for name in found):
        expected = {name: tensor for name, tensor in expected.items() if not name.startswith(f"{backbone.head}.")}
    return [name for name in expected.keys() | found.keys() if not _is_like(found.get(name), expected.get(name))]


def _is_like(found: Tensor | None, expected: Tensor | None) -> bool:
    """Return whether a tensor can be copied to where the other is: of a shape, of numbers of a kind, plain and in memory."""
    if found is None or expected is None:
        return False
    is_plain = found.layout is torch.strided and found.device.type == "cpu" and not found.is_quantized
    return is_plain and found.shape == expected.shape and found.is_floating_point() == expected.is_floating_point()
