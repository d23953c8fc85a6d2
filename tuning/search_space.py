"""The only place with ranges: one line makes an option one that can be searched."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna

from histo_mlflow.errors import OptionError
from histo_mlflow.learning.options import ALL, GRADUAL, HEAD

from .options import SearchOptions


@dataclass(frozen=True)
class Space:
    """What is searched, by the public names of `train`'s options, and what its ranges depend on.

    Attributes:
        epochs: Of a trial.
        names: In the order in which they are drawn.
        backbones: To choose from.
    """

    epochs: int
    names: tuple[str, ...]
    backbones: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: SearchOptions, *, epochs: int) -> "Space":
        """Return what is asked for; raises `OptionError` for an option that has no range."""
        names, backbones = _words(options.search), _words(options.backbones)
        if BACKBONE in names and not backbones:
            raise OptionError("search=backbone: give the ones to choose from, for instance --backbones lite0,timm:resnet18")
        names = (*names, BACKBONE) if backbones and BACKBONE not in names else names
        for name in names:
            if name not in _RANGES:
                raise OptionError(f"search={name}: has no range; those that have are {', '.join(_RANGES)}")
        if "trainable" in names and epochs < 2:
            raise OptionError(f"search=trainable: {GRADUAL} takes at least 2 epochs; give --epochs 2 or more")
        if not names:
            raise OptionError(f"search=: nothing is searched; give some of {', '.join(_RANGES)}")
        return cls(epochs, names, backbones)

    def check(self, trainable: str) -> None:
        """Raise `OptionError` for an option that would change nothing where this much learns."""
        for name in self.names:
            if trainable == HEAD and name not in _OF_A_HEAD:
                raise OptionError(
                    f"search={name}: has no meaning with trainable={HEAD}; give --search head_cost, or augment, class_weights, "
                    "or --backbones"
                )
            if trainable != HEAD and name == "head_cost":
                raise OptionError(f"search={name}: has no meaning with trainable={trainable}; give --trainable {HEAD} too")


BACKBONE = "backbone"
_OF_A_HEAD = {BACKBONE, "augment", "head_cost", "class_weights"}  # which has neither epochs nor rates

_RANGES: dict[str, Callable[[optuna.trial.BaseTrial, Space], Any]] = {
    "aug_cutoff": lambda trial, space: trial.suggest_int("aug_cutoff", 0, space.epochs),
    "learning_rate": lambda trial, _: trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
    "weight_decay": lambda trial, _: trial.suggest_float("weight_decay", 1e-4, 0.3, log=True),
    "label_smoothing": lambda trial, _: trial.suggest_float("label_smoothing", 0.0, 0.2),
    "augment": lambda trial, _: trial.suggest_categorical("augment", ["seed", "symmetries", "none"]),
    "stain_sigma": lambda trial, _: trial.suggest_float("stain_sigma", 0.01, 0.1, log=True),
    "trainable": lambda trial, _: trial.suggest_categorical("trainable", [ALL, GRADUAL]),
    "head_cost": lambda trial, _: trial.suggest_float("head_cost", 1e-5, 10, log=True),
    "class_weights": lambda trial, _: trial.suggest_categorical("class_weights", ["none", "balanced"]),
    "layer_decay": lambda trial, _: trial.suggest_float("layer_decay", 0.5, 1.0),
    BACKBONE: lambda trial, space: trial.suggest_categorical(BACKBONE, space.backbones),
}


def suggest(trial: optuna.trial.BaseTrial, space: Space) -> dict[str, Any]:
    """Return values for options of `train`, by their public names."""
    return {name: _RANGES[name](trial, space) for name in space.names}


def _words(text: str) -> tuple[str, ...]:
    """Return what stands between the commas, each once."""
    return tuple(dict.fromkeys(word for part in text.split(",") if (word := part.strip()) and word != "none"))
