"""What a store will refuse, found before the work whose result it would refuse; asks MLflow's own rules."""

from collections.abc import Iterable, Mapping

from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, _validate_metric, _validate_model_name

from histo_mlflow.errors import OptionError, RequestError

CLASS_FIGURES = ("sensitivity", "specificity")
"""Figures of each class that are metrics of a run."""

_SPLITS = ("val", "test", "oof")
_MAX_MODEL_NAME = 256  # a column of MLflow's database; SQLite lets more pass, PostgreSQL does not
_SHOWN = 60


def class_metric(split: str, figure: str, name: str) -> str:
    """Return the name of the metric that holds a figure of class `name`."""
    return f"{split}/{figure}/{name}"


def check_classes_accepted(classes: Iterable[str], *, where: str) -> None:
    """Raise `RequestError` unless the figures of every class can be metrics; `where` says whose classes they are."""
    for name in classes:
        for metric in (class_metric(split, figure, name) for split in _SPLITS for figure in CLASS_FIGURES):
            if reason := _refusal(metric):
                raise RequestError(
                    f"{where} has the class name {_shortened(name)!r}, and MLflow takes no metric of a name that ends so "
                    f"({reason}); rename the class"
                )


def check_options_accepted(options: Mapping[str, object]) -> None:
    """Raise `OptionError` unless every option can be a parameter of a run, and `model_name`, if given, a model's name."""
    for name, value in options.items():
        if len(str(value)) > MAX_PARAM_VAL_LENGTH:
            raise OptionError(
                f"{name}={_shortened(str(value))!r} has {len(str(value))} characters, and MLflow keeps {MAX_PARAM_VAL_LENGTH}; "
                "shorten it"
            )
    if "model_name" in options:
        _check_model_name(str(options["model_name"]))


def _check_model_name(name: str) -> None:
    try:
        _validate_model_name(name)
    except MlflowException:
        raise OptionError(f"model_name={name!r}: MLflow takes it for a path; give it letters") from None
    if len(name) > _MAX_MODEL_NAME:
        raise OptionError(
            f"model_name={_shortened(name)!r} has {len(name)} characters, and MLflow keeps {_MAX_MODEL_NAME}; shorten it"
        )


def _refusal(metric: str) -> str | None:
    try:
        _validate_metric(metric, 0.0, 0, 0)  # type: ignore[no-untyped-call]
    except MlflowException as error:
        return str(error).rpartition("supplied: ")[2].partition(". This name")[0]
    return None


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
