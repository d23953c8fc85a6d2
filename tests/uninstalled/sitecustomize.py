"""Lets commands in processes of their own run as where MLflow has built the environment: our package is not installed."""

import importlib.metadata

_find = importlib.metadata.distribution


def _find_others(name: str) -> importlib.metadata.Distribution:
    if name == "histo-mlflow":
        raise importlib.metadata.PackageNotFoundError(name)
    return _find(name)


importlib.metadata.distribution = _find_others
