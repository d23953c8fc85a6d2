"""``timm:NAME`` or ``timm:NAME.TAG``: every network of timm's that classifies images and ends in a linear layer."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import timm
import torch
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from torch import nn

from histo_mlflow.base.plain_values import reason_of, shorten
from histo_mlflow.errors import OptionError
from histo_mlflow.models.backbone import BICUBIC, BILINEAR, Backbone, Pixels, Tensors, measure_head, outline_of
from histo_mlflow.models.hub_file import HubFile
from histo_mlflow.models.licence import licence_of
from histo_mlflow.models.weight_files import FileAtUrl, WeightFile

_SPATIAL = (2, 3)  # dimensions of rows and columns in torch's own layout
# What timm raises for names and configurations that it can't follow.
_REFUSALS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, OSError)


def find(network: str) -> Backbone:
    """Return the network of that name; raises `OptionError` if timm has no such classifier."""
    name = f"timm:{network}"
    if not timm.is_model(network.partition(".")[0]):
        raise OptionError(
            f"backbone={shorten(name)}: timm {timm.__version__} has no such network; timm.list_models() names them"
        )
    return from_timm(name, network, _published)


def from_timm(name: str, timm_name: str, published: Callable[[Mapping[str, Any]], WeightFile | None]) -> Backbone:
    """Return what timm builds under a name of its own.

    Args:
        name: By which the backbone is found here.
        timm_name: As ``timm.create_model`` takes it.
        published: From timm's configuration of the network to its `WeightFile`, or None.

    Raises:
        OptionError: timm can't build it, or it does not end in a linear layer.
    """
    try:
        outline = outline_of(partial(_create, timm_name), 1, 0)
        settings: Mapping[str, Any] = outline.pretrained_cfg  # type: ignore[assignment]
        head = outline.get_classifier()  # type: ignore[operator]
        pixels = _pixels_of(settings)
    except _REFUSALS as error:
        raise OptionError(f"backbone={shorten(name)}: timm can't build it ({reason_of(error)})") from None
    is_fixed = bool(settings.get("fixed_input_size"))
    build = partial(_build, timm_name, is_fixed)
    return Backbone(
        name,
        build,
        pixels,
        published(settings),
        *measure_head(name, outline, head),
        pooling=_find_pooling(outline),
        convert=partial(_convert, timm_name, int(settings.get("num_classes") or 0)),
        resize=partial(_resize, build) if is_fixed and hasattr(outline, "set_input_size") else None,
    )


def _create(timm_name: str, n_classes: int, size_px: int, **more: Any) -> nn.Module:
    """Return a network for an edge length, 0 for its own."""
    size: dict[str, Any] = {"img_size": size_px} if size_px else {}
    network: nn.Module = timm.create_model(timm_name, num_classes=n_classes, **size, **more)
    return network


def _build(timm_name: str, is_fixed: bool, n_classes: int, size_px: int) -> nn.Module:
    return _create(timm_name, n_classes, size_px if is_fixed else 0)


def _pixels_of(settings: Mapping[str, Any]) -> Pixels:
    channels, _, size_px = settings["input_size"]
    if channels != 3:
        raise ValueError(f"it takes {channels} channels")
    interpolation = BILINEAR if settings["interpolation"] == BILINEAR else BICUBIC
    return Pixels(size_px, tuple(settings["mean"]), tuple(settings["std"]), interpolation)


def _published(settings: Mapping[str, Any]) -> WeightFile | None:
    tag = f".{settings['tag']}" if settings.get("tag") else ""
    words, licence = f"timm {settings['architecture']}{tag}", licence_of(settings.get("license"))
    if settings.get("hf_hub_id"):
        only = settings.get("hf_hub_filename")
        return HubFile(words, licence, settings["hf_hub_id"], *([(only,)] if only else []))
    return FileAtUrl(words, licence, settings["url"]) if settings.get("url") else None


def _find_pooling(network: nn.Module) -> str | None:
    """Return the name of the last pooling of feature maps in torch's own layout, if there is one."""
    names = [
        name for name, module in network.named_modules() if isinstance(module, SelectAdaptivePool2d) and _is_of_maps(module)
    ]
    return names[-1] if names else None


def _is_of_maps(pooling: SelectAdaptivePool2d) -> bool:
    return bool(pooling.pool_type) and getattr(pooling.pool, "dim", _SPATIAL) == _SPATIAL


def _convert(timm_name: str, n_classes: int, tensors: Mapping[str, Any]) -> Tensors:
    """Let timm read weights in the form in which their authors have published them."""
    with torch.random.fork_rng(devices=[]):
        network = _create(
            timm_name, n_classes, 0, pretrained=True, pretrained_cfg_overlay={"source": "", "state_dict": dict(tensors)}
        )
    converted: Tensors = network.state_dict()
    return converted


def _resize(build: Callable[[int, int], nn.Module], tensors: Tensors, before_px: int, after_px: int) -> Tensors:
    """Let timm bring what depends on the edge length, such as the embedding of positions, to another one."""
    with torch.random.fork_rng(devices=[]):
        network = build(1, before_px)
    fitting = {name: tensors[name] for name, own in network.state_dict().items() if own.shape == tensors[name].shape}
    network.load_state_dict(fitting, strict=False)  # all but a head for several classes
    network.set_input_size(img_size=(after_px, after_px))  # type: ignore[operator]
    resized = network.state_dict()
    return {name: resized[name] if name in fitting else tensor for name, tensor in tensors.items()}
