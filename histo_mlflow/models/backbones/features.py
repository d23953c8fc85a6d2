"""No backbone at all: tiles come as features that another program has made; ``features:N`` takes N of them."""

from collections import OrderedDict
from functools import partial

from torch import nn

from histo_mlflow.base.plain_values import shorten
from histo_mlflow.errors import OptionError
from histo_mlflow.models.backbone import NO_PIXELS, Backbone
from histo_mlflow.models.options import features_name

_MOST = 2**16


def find(network: str) -> Backbone:
    """Return what takes so many features; raises `OptionError` unless `network` is a number of them."""
    if not network.isdecimal() or not 0 < int(network[:6]) <= _MOST or len(network) > 5:
        raise OptionError(f"backbone=features:{shorten(network)}: must be a number of features from 1 to {_MOST}")
    n_features = int(network)
    build = partial(_build, n_features)
    return Backbone(features_name(n_features), build, NO_PIXELS, None, head="head", n_features=n_features)


def _build(n_features: int, n_classes: int, _size_px: int) -> nn.Module:
    return nn.Sequential(OrderedDict(head=nn.Linear(n_features, n_classes)))
