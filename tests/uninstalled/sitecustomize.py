"""For commands in processes of their own: our package is not installed, as where MLflow has built the environment."""

import importlib.metadata
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from types import ModuleType

_find = importlib.metadata.distribution


def _find_others(name: str) -> importlib.metadata.Distribution:
    if name == "histo-mlflow":
        raise importlib.metadata.PackageNotFoundError(name)
    return _find(name)


importlib.metadata.distribution = _find_others


class _SmallNetwork(MetaPathFinder):
    """Makes networks small as soon as the module that builds them is imported, as the fixture `small_network` does."""

    def find_spec(self, name, *_):
        if name != "histo_mlflow.models.backbones.torchvision":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_replace(module: ModuleType) -> None:
            execute(module)
            from tests.small_network import get_small_model

            module.get_model = get_small_model

        spec.loader.exec_module = execute_and_replace
        return spec


if "TESTS_SMALL_NETWORK" in os.environ:
    sys.meta_path.insert(0, _SmallNetwork())
