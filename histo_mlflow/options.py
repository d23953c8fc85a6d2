"""Puts together the option dataclasses that live beside their users; holds no default and no check of its own.

A configuration is a dataclass of option dataclasses. Its options are the leaf fields, and their names are the public ones: in
MLproject, on the command line (with hyphens) and in a yaml.
"""

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from histo_mlflow.base.plain_values import read_yaml_mapping, shorten
from histo_mlflow.errors import OptionError, SourceNotFoundError
from histo_mlflow.evaluation.gate import GateOptions
from histo_mlflow.evaluation.options import AbstentionOptions, CalibrationOptions, CostOptions, RobustnessOptions
from histo_mlflow.learning.augmentation import AugmentationOptions
from histo_mlflow.learning.compute import ComputeOptions, EngineOptions, SeedOptions
from histo_mlflow.learning.optimiser import FitOptions
from histo_mlflow.model_options import (
    DeliveryOptions,
    DrawingOptions,
    NameOptions,
    OutputOptions,
    PairOptions,
    PromotionOptions,
    ReasonOptions,
    ReplayOptions,
    ScoringOptions,
)
from histo_mlflow.models.exports import ExportOptions, RuntimeOptions
from histo_mlflow.models.weights import NetworkOptions
from histo_mlflow.tiles.open import DataOptions
from histo_mlflow.tiles.splits import FoldOptions, HoldOutOptions
from histo_mlflow.tracking.kept_checkpoints import KeepingOptions
from histo_mlflow.tracking.registry import RegistryOptions
from histo_mlflow.tracking.wandb_sink import MirrorOptions

ConfigT = TypeVar("ConfigT")

GIVEN = "given"
"""Name of the field that holds which options were typed or in a yaml; no option itself."""


_INT_BOUND = 2**63


@dataclass(frozen=True)
class LearningConfig:
    """Everything that decides what a network becomes from given tiles."""

    network: NetworkOptions
    fit: FitOptions
    augmentation: AugmentationOptions
    seed: SeedOptions
    compute: ComputeOptions
    engine: EngineOptions


@dataclass(frozen=True)
class TrainConfig:
    """What `train` is asked to do."""

    data: DataOptions
    hold_out: HoldOutOptions
    learning: LearningConfig
    calibration: CalibrationOptions
    costs: CostOptions
    keeping: KeepingOptions
    registry: RegistryOptions
    gate: GateOptions
    mirror: MirrorOptions


@dataclass(frozen=True)
class CvConfig:
    """What `cv` is asked to do."""

    data: DataOptions
    folds: FoldOptions
    learning: LearningConfig
    calibration: CalibrationOptions
    costs: CostOptions
    keeping: KeepingOptions
    registry: RegistryOptions
    gate: GateOptions
    mirror: MirrorOptions


@dataclass(frozen=True)
class EvaluateConfig:
    """What `evaluate` is asked to do."""

    scoring: ScoringOptions
    robustness: RobustnessOptions
    costs: CostOptions
    compute: ComputeOptions
    mirror: MirrorOptions


@dataclass(frozen=True)
class CompareConfig:
    """What `compare` is asked to do."""

    pair: PairOptions
    costs: CostOptions
    compute: ComputeOptions
    mirror: MirrorOptions


@dataclass(frozen=True)
class PromoteConfig:
    """What `promote` is asked to do."""

    choice: PromotionOptions
    name: NameOptions
    why: ReasonOptions
    gate: GateOptions
    compute: ComputeOptions
    mirror: MirrorOptions


@dataclass(frozen=True)
class HistoryConfig:
    """What `history` is asked to do."""

    name: NameOptions


@dataclass(frozen=True)
class RollbackConfig:
    """What `rollback` is asked to do."""

    name: NameOptions
    why: ReasonOptions


@dataclass(frozen=True)
class ExportConfig:
    """What `export` is asked to do."""

    export: ExportOptions


@dataclass(frozen=True)
class MirrorConfig:
    """What `mirror` is asked to do."""

    replay: ReplayOptions


@dataclass(frozen=True)
class DeliverConfig:
    """What `deliver` is asked to do."""

    delivery: DeliveryOptions


@dataclass(frozen=True)
class ReportConfig:
    """What `report` is asked to do."""

    drawing: DrawingOptions


@dataclass(frozen=True)
class PredictConfig:
    """What `predict` is asked to do."""

    scoring: ScoringOptions
    output: OutputOptions
    runtime: RuntimeOptions
    abstention: AbstentionOptions
    compute: ComputeOptions


def option_fields(config_class: type) -> dict[str, Field[Any]]:
    """Return the options of a configuration class by public name, in order."""
    return {name: option for name, option in _leaves(config_class) if name != GIVEN}


def build(config_class: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Return a configuration from option values by public name; what is missing has its default."""
    parts = {
        part.name: build(_class_of(part), values) if _is_group(part) else values.get(part.name, part.default)
        for part in fields(config_class)  # type: ignore[arg-type]
    }
    return config_class(**parts)


def flatten(config: object) -> dict[str, Any]:
    """Return the values of all options by public name, in order."""
    flat: dict[str, Any] = {}
    for part in fields(config):  # type: ignore[arg-type]
        value = getattr(config, part.name)
        flat |= flatten(value) if _is_group(part) else {part.name: value}
    flat.pop(GIVEN, None)
    return flat


def read_yaml(path: Path, config_class: type) -> dict[str, Any]:
    """Return the option values of a yaml file; every key must be an option of `config_class`.

    Raises:
        SourceNotFoundError: There is no such file.
        OptionError: It is not a yaml mapping, or a key is no option or has a value of the wrong kind.
    """
    known = option_fields(config_class)
    content = _load(path)
    if strangers := [shorten(key) for key in content if key not in known]:
        raise OptionError(f"config={path}: unknown option {' '.join(strangers)[:200]}; known are {' '.join(known)}")
    return {name: _as_type(known[name], value, path) for name, value in content.items()}


def read_kept_yaml(path: Path, config_class: type) -> dict[str, Any]:
    """Return the option values of a run's ``config.yaml``, without options that are gone; raises as `read_yaml` does."""
    known = option_fields(config_class)
    return {name: _as_type(known[name], value, path) for name, value in _load(path).items() if name in known}


def _load(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise SourceNotFoundError(f"config={path}: no such file; give a yaml with option names and values")
    try:
        return read_yaml_mapping(path)
    except ValueError as error:
        raise OptionError(f"config={path} is not yaml with option names and values ({error})") from None


def _as_type(option: Field[Any], value: object, path: Path) -> object:
    kind = type(option.default)
    if isinstance(value, int) and abs(value) >= _INT_BOUND:
        raise OptionError(f"config={path}: {option.name} is out of range; numbers have less than 64 bits")
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)  # yaml takes 1e-4 for a text
        except ValueError:
            pass
    if type(value) is not kind:
        raise OptionError(f"config={path}: {option.name}={reprlib.repr(value)} must be {kind.__name__}")
    return value


def _leaves(config_class: type) -> Iterator[tuple[str, Field[Any]]]:
    for part in fields(config_class):
        if _is_group(part):
            yield from _leaves(_class_of(part))
        else:
            yield part.name, part


def _class_of(part: Field[Any]) -> type[Any]:
    assert isinstance(part.type, type)  # no postponed annotations in option dataclasses
    return part.type


def _is_group(part: Field[Any]) -> bool:
    return part.default is MISSING
