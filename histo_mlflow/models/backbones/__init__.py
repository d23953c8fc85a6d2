"""The networks that can learn, each under a name: SOURCE:NETWORK, or a file.

A source is a module beside this one, with a function ``find(network)`` that returns a `Backbone` or raises `OptionError`;
another source is one more module (docs/backbones.md).
"""

from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from histo_mlflow.base.plain_values import shorten
from histo_mlflow.errors import OptionError
from histo_mlflow.models.backbone import Backbone
from histo_mlflow.models.options import DEFAULT_BACKBONE, GRAPH_SUFFIXES

__all__ = ["DEFAULT_BACKBONE", "find_backbone"]


@cache
def find_backbone(name: str) -> Backbone:
    """Return the backbone of that name; raises `OptionError` if there is none."""
    source, _, network = ("graph", "", name) if Path(name).suffix in GRAPH_SUFFIXES else name.partition(":")
    known = sorted(module.name for module in iter_modules(__path__))
    if source not in known:
        raise OptionError(
            f"backbone={shorten(name)}: must be SOURCE:NETWORK with a source of {', '.join(known)}, such as {DEFAULT_BACKBONE}"
        )
    found: Backbone = import_module(f"{__name__}.{source}").find(network)
    return found
