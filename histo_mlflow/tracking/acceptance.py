"""What a store will refuse, found before the work whose result it would refuse; asks MLflow's own rules."""

from collections.abc import Iterable, Mapping
from itertools import product

from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, _validate_metric, _validate_model_name

from histo_mlflow.base.plain_values import shorten
from histo_mlflow.errors import OptionError, RequestError

CLASS_FIGURES = ("sensitivity", "specificity")
"""Figures of each class that are metrics of a run."""

_SPLITS = ("val", "test", "oof")
_MAX_MODEL_NAME = 256  # a column of MLflow's database; SQLite lets more pass, PostgreSQL does not


def class_metric(split: str, figure: str, name: str) -> str:
    """Return the name of the metric that holds a figure of class `name`."""
    return f"{split}/{figure}/{name}"


def check_classes_accepted(classes: Iterable[str], *, where: str) -> None:
    """Raise `RequestError` unless the figures of every class can be metrics; `where` says whose classes they are."""
    for name, split, figure in product(classes, _SPLITS, CLASS_FIGURES):
        try:
            _validate_metric(class_metric(split, figure, name), 0.0, 0, 0)  # type: ignore[no-untyped-call]
        except MlflowException as error:
            reason = str(error).rpartition("supplied: ")[2].partition(". This name")[0]
            raise RequestError(
                f"{where} has the class name {shorten(repr(name))}, and MLflow takes no metric of a name that ends so "
                f"({reason}); rename the class"
            ) from None


def check_options_accepted(options: Mapping[str, object]) -> None:
    """Raise `OptionError` unless every option can be a parameter of a run, and `model_name`, if given, a model's name."""
    for name, value in options.items():
        text, most = str(value), _MAX_MODEL_NAME if name == "model_name" else MAX_PARAM_VAL_LENGTH
        if len(text) > most:
            raise OptionError(f"{name}={shorten(repr(text))} has {len(text)} characters, and MLflow keeps {most}; shorten it")
    if "model_name" in options:
        try:
            _validate_model_name(str(options["model_name"]))
        except MlflowException:
            raise OptionError(f"model_name={options['model_name']!r}: MLflow takes it for a path; give it letters") from None
