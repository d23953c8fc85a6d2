"""What learning can be asked: device and precision, how long and how fast, augmentation; imports no torch."""

import re
from dataclasses import dataclass, replace
from typing import Any

from histo_mlflow.errors import OptionError
from histo_mlflow.models.options import NetworkOptions, features_name
from histo_mlflow.options import Options, flatten, option, option_fields

_WINDOW = re.compile(r"(\d+)-(\d+)")
_NEVER = (1, 0)
_ALWAYS = (1, 10**9)

ALL, GRADUAL, HEAD = "all", "gradual", "head"


@dataclass(frozen=True)
class FitOptions(Options):
    """Training: what learns, how long, how fast, how carefully."""

    trainable: str = option(
        ALL,
        "What learns: all layers; gradual: the head alone at first, on a frozen backbone, then all of them; or head: the head "
        "alone, a logistic regression on features of the frozen backbone that are computed once for each view that "
        "augmentation makes and kept. A head needs no epochs or rates: C is chosen by validation loss.",
        choices=(ALL, GRADUAL, HEAD),
    )
    head_epochs: int = option(
        1, "With trainable=gradual: in how many epochs, the first ones, the head learns alone.", at_least=1
    )
    head_cost: float = option(
        0.0,
        "With trainable=head: C of the logistic regression, what an error costs against the penalty on weights; 0 = chosen by "
        "validation loss from 1e-5 to 10.",
        at_least=0,
    )
    layer_decay: float = option(
        1.0,
        "Smaller learning rates for early layers: by this factor for each twelfth of the way from head to stem; 1 = equal.",
        above=0,
        at_most=1,
    )
    epochs: int = option(20, "How often every training tile is seen.", at_least=1)
    learning_rate: float = option(
        1e-3,
        "Peak of the learning rate (AdamW, linear warm-up, then cosine to 0). With trainable=gradual and trained weights 3e-3 "
        "and layer_decay 0.75 take the place of the defaults.",
        above=0,
    )
    batch_size: int = option(32, "Tiles per step, at least 2 for batch norm; of all processes together.", at_least=2)
    weight_decay: float = option(0.05, "Decay of weights (AdamW); norms and biases have none.", at_least=0, at_most=1)
    label_smoothing: float = option(0.0, "Share of the target spread over all classes.", at_least=0, at_most=0.5)
    clip_norm: float = option(1.0, "Largest norm of the gradient; longer ones are cut. 0 = no limit.", at_least=0)
    ema_decay: float = option(
        0.0,
        "Validate and keep a moving average of the weights, for instance 0.99 per step; 0 = the weights.",
        at_least=0,
        at_most=0.99999,
    )
    class_weights: str = option(
        "none", "none, or balanced: rare classes weigh more in the training loss.", choices=("none", "balanced")
    )
    patience: int = option(0, "Stop after so many epochs without a lower validation loss; 0 = learn all epochs.", at_least=0)

    def __post_init__(self) -> None:
        """Raise `OptionError` for values that do not go together too."""
        super().__post_init__()
        if self.epochs <= self.epochs_of_head_alone:
            raise OptionError(
                f"trainable={GRADUAL}: epochs={self.epochs} leaves none for all layers after head_epochs={self.head_epochs}; "
                f"give at least {self.head_epochs + 1} epochs"
            )

    @property
    def epochs_of_head_alone(self) -> int:
        """In how many epochs, the first ones, nothing but the head learns."""
        return self.head_epochs if self.trainable == GRADUAL else 0

    @property
    def phases(self) -> tuple[int, ...]:
        """Epochs of each part of the training in which the same layers learn."""
        alone = self.epochs_of_head_alone
        return (alone, self.epochs - alone) if alone else (self.epochs,)


def _window(what: str, by_recipe: str) -> str:
    return f"Epochs with {what}: auto ({by_recipe}), none, all, or FIRST-LAST such as 1-18."


@dataclass(frozen=True)
class AugmentationOptions(Options):
    """Augmentation: random changes of tiles, and in which epochs."""

    augment: str = option(
        "seed",
        "Recipe: seed (flips from the first epoch, right-angle rotations in the later half of the window, nothing after "
        "aug_cutoff), symmetries (flips and rotations from the first epoch to aug_cutoff) or none.",
        choices=("seed", "symmetries", "none"),
    )
    aug_cutoff: int = option(12, "Last epoch of the recipe; 0 for never, `epochs` for always.", at_least=0)
    flips: str = option("auto", _window("flips", "as the recipe says"))
    rotations: str = option("auto", _window("rotations by right angles", "as the recipe says"))
    stain: str = option("none", _window("stain jitter (HED, Tellez et al. 2019)", "1 to aug_cutoff"))
    stain_sigma: float = option(0.05, "Strength of the stain jitter: 0.05 is light, 0.2 strong.", at_least=0, at_most=1)

    def __post_init__(self) -> None:
        """Raise `OptionError` for a window without sense too."""
        super().__post_init__()
        self.windows()

    def windows(self) -> dict[str, tuple[int, int]]:
        """Return the first and the last epoch in which each transform acts, by its name, counted from 1."""
        recipe = (1, self.aug_cutoff)
        auto = {
            "seed": {"flips": recipe, "rotations": (self.aug_cutoff // 2 + 1, self.aug_cutoff)},
            "symmetries": {"flips": recipe, "rotations": recipe},
            "none": {"flips": _NEVER, "rotations": _NEVER},
        }[self.augment]
        asked = {"flips": self.flips, "rotations": self.rotations, "stain": self.stain}
        return {name: _read_window(name, text, auto=auto.get(name, recipe)) for name, text in asked.items()}

    def last_epoch(self, *, epochs: int) -> int:
        """Return the last of `epochs` in which any transform acts, 0 if none does."""
        return max(min(last, epochs) if first <= epochs else 0 for first, last in self.windows().values())


def _read_window(name: str, text: str, *, auto: tuple[int, int]) -> tuple[int, int]:
    if text in {"auto", "none", "all"}:
        return {"auto": auto, "none": _NEVER, "all": _ALWAYS}[text]
    match = _WINDOW.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise OptionError(f"{name}={text}: must be auto, none, all, or a first and a last epoch such as 1-18")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class SeedOptions(Options):
    """Seed."""

    seed: int = option(
        0, "Seed of the split, the first weights, the order and the augmentation.", at_least=0, at_most=2**32 - 1
    )


@dataclass(frozen=True)
class ComputeOptions(Options):
    """Device and precision."""

    comes_last = True

    device: str = option("auto", "auto (a GPU if there is one), cpu, cuda, cuda:1 or mps.", changes_result=False)
    precision: str = option(
        "auto",
        "auto (training: bf16 where it was measured to be faster, else fp32; final scores, evaluate and predict: fp32), fp32 "
        "or bf16.",
        choices=("auto", "fp32", "bf16"),
    )


@dataclass(frozen=True)
class EngineOptions(Options):
    """Engine; with the thread count and the device these decide the last bits of a result."""

    comes_last = True

    processes: int = option(
        1, "Processes that divide each batch among them (DDP): one per GPU, or 1. On CPUs 1 is fastest.", at_least=1
    )
    deterministic: bool = option(
        False, "Also on a GPU the same weights to the last bit for the same seed; slower there. CPUs always do."
    )
    compile: bool = option(False, "torch.compile the network: takes a minute or more first, so for long trainings only.")


@dataclass(frozen=True)
class Recipe(Options):
    """Everything that decides what a network becomes from given tiles."""

    network: NetworkOptions
    fit: FitOptions
    augmentation: AugmentationOptions
    seed: SeedOptions
    compute: ComputeOptions
    engine: EngineOptions

    def __post_init__(self) -> None:
        """Raise `OptionError` for what a head can't have too."""
        super().__post_init__()
        if self.fit.trainable != HEAD:
            return
        first, last = self.augmentation.windows()["stain"]
        asked = {
            f"stain={self.augmentation.stain}": first <= last,
            f"ema_decay={self.fit.ema_decay}": self.fit.ema_decay > 0,
            f"label_smoothing={self.fit.label_smoothing}": self.fit.label_smoothing > 0,
            f"layer_decay={self.fit.layer_decay:g}": self.fit.layer_decay < 1,
            f"processes={self.engine.processes}": self.engine.processes > 1,
            "compile=true": self.engine.compile,
        }
        if vain := [text for text, is_asked in asked.items() if is_asked]:
            raise OptionError(f"{vain[0]}: has no meaning with trainable=head; leave it out, or give trainable=all")


def suit_to_features(recipe: Recipe, given: frozenset[str], *, n_features: int) -> Recipe:
    """Return the recipe for tiles that come as features: a head is fitted on them as they are.

    Raises:
        OptionError: Something else is asked for that has no meaning then.
    """
    suited = {
        "backbone": features_name(n_features), "weights": "none", "image_size": 0, "trainable": HEAD, "augment": "none",
        "flips": "auto", "rotations": "auto",
    }  # fmt: skip
    values = flatten(recipe)
    for name in suited:
        if name in given and values[name] != suited[name]:
            raise OptionError(f"{name}={values[name]}: has no meaning where data holds features; leave it out")
    groups = {"network": recipe.network, "fit": recipe.fit, "augmentation": recipe.augmentation}
    changed = {
        group: replace(options, **{name: value for name, value in suited.items() if name in option_fields(type(options))})
        for group, options in groups.items()
    }
    return replace(recipe, **changed)  # type: ignore[arg-type]


# From weights that were trained before, measured on real tissue (docs/transfer.md); elsewhere the declared defaults are best.
_SUITED: dict[str, dict[str, Any]] = {GRADUAL: {"learning_rate": 3e-3, "layer_decay": 0.75}}


def suit_to_trained_weights(recipe: Recipe, given: frozenset[str]) -> Recipe:
    """Return the recipe with the rates that suit weights that were trained before, in place of defaults.

    What is `given`, or is not as it was declared, stays.
    """
    values, known = flatten(recipe.fit), option_fields(type(recipe.fit))
    is_default = {name for name, part in known.items() if name not in given and values[name] == part.default}
    suited = {name: value for name, value in _SUITED.get(recipe.fit.trainable, {}).items() if name in is_default}
    return replace(recipe, fit=replace(recipe.fit, **suited))
