"""Which random change acts in which epochs; the reasons and the measured effect of each are in docs/augmentation.md."""

import re
from dataclasses import dataclass, field

import torch
from torch import Tensor

from histo_mlflow.errors import OptionError
from histo_mlflow.learning.transforms import Flip, JpegNoise, Rotate, StainJitter, Transform

RECIPES = ("seed", "symmetries", "none")

_WINDOW = re.compile(r"(\d+)-(\d+)")
_NEVER = (1, 0)
_ALWAYS = (1, 10**9)


def _window_help(what: str, by_recipe: str) -> dict[str, str]:
    return {"help": f"Epochs with {what}: auto ({by_recipe}), none, all, or FIRST-LAST such as 1-18."}


@dataclass(frozen=True)
class AugmentationOptions:
    """What changes tiles at random while the network learns, and when."""

    augment: str = field(
        default="seed",
        metadata={
            "help": "Recipe: seed (flips from the first epoch, right-angle rotations in the later half of the window, nothing "
            "after aug_cutoff), symmetries (flips and rotations from the first epoch to aug_cutoff) or none.",
            "choices": RECIPES,
        },
    )
    aug_cutoff: int = field(default=12, metadata={"help": "Last epoch of the recipe; 0 for never, `epochs` for always."})
    flips: str = field(default="auto", metadata=_window_help("flips", "as the recipe says"))
    rotations: str = field(default="auto", metadata=_window_help("rotations by right angles", "as the recipe says"))
    stain: str = field(default="none", metadata=_window_help("stain jitter (HED, Tellez et al. 2019)", "1 to aug_cutoff"))
    stain_sigma: float = field(default=0.05, metadata={"help": "Strength of the stain jitter: 0.05 is light, 0.2 strong."})
    jpeg: str = field(default="none", metadata=_window_help("JPEG-like loss in half of the tiles", "1 to aug_cutoff"))
    jpeg_quality: int = field(default=50, metadata={"help": "Lowest quality of the JPEG-like loss, 1 to 95."})

    def __post_init__(self) -> None:
        if self.augment not in RECIPES:
            raise OptionError(f"augment={self.augment}: must be one of {', '.join(RECIPES)}")
        if self.aug_cutoff < 0:
            raise OptionError(f"aug_cutoff={self.aug_cutoff}: must be 0 (never) or the last augmented epoch")
        if not 0 <= self.stain_sigma <= 1:
            raise OptionError(f"stain_sigma={self.stain_sigma}: must be between 0 and 1; 0.05 is light, 0.2 strong")
        if not 1 <= self.jpeg_quality <= 95:
            raise OptionError(f"jpeg_quality={self.jpeg_quality}: must be between 1 and 95")
        schedule(self)


@dataclass(frozen=True)
class ScheduledTransform:
    """A transform that acts from `first_epoch` to `last_epoch`, both included and counted from 1."""

    transform: Transform
    first_epoch: int
    last_epoch: int


def schedule(options: AugmentationOptions) -> tuple[ScheduledTransform, ...]:
    """Return the transforms with their windows; raises `OptionError` for a window without sense."""
    cutoff = options.aug_cutoff
    by_recipe = {
        "seed": {"flips": (1, cutoff), "rotations": (cutoff // 2 + 1, cutoff)},
        "symmetries": {"flips": (1, cutoff), "rotations": (1, cutoff)},
        "none": {"flips": _NEVER, "rotations": _NEVER},
    }[options.augment]
    windows: dict[str, tuple[int, int]] = {**by_recipe, "stain": (1, cutoff), "jpeg": (1, cutoff)}
    # Colour last but one: a slide is stained, and then stored as JPEG.
    transforms: dict[str, Transform] = {
        "flips": Flip(),
        "rotations": Rotate(),
        "stain": StainJitter(options.stain_sigma),
        "jpeg": JpegNoise(options.jpeg_quality),
    }
    return tuple(
        ScheduledTransform(transform, *_read_window(name, getattr(options, name), auto=windows[name]))
        for name, transform in transforms.items()
    )


def _read_window(name: str, text: str, *, auto: tuple[int, int]) -> tuple[int, int]:
    if text in {"auto", "none", "all"}:
        return {"auto": auto, "none": _NEVER, "all": _ALWAYS}[text]
    match = _WINDOW.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise OptionError(f"{name}={text}: must be auto, none, all, or a first and a last epoch such as 1-18")
    return int(match[1]), int(match[2])


def last_augmented_epoch(options: AugmentationOptions, *, epochs: int) -> int:
    """Return the last of `epochs` in which any transform acts, 0 if none does."""
    return max(min(each.last_epoch, epochs) if each.first_epoch <= epochs else 0 for each in schedule(options))


def draw_changes(
    n_tiles: int, *, epoch: int, transforms: tuple[ScheduledTransform, ...], generator: torch.Generator
) -> list[tuple[Transform, Tensor]]:
    """Return what happens to each of `n_tiles` tiles in `epoch`: the transforms whose window holds it, with what they drew."""
    return [
        (scheduled.transform, scheduled.transform.draw(n_tiles, generator))
        for scheduled in transforms
        if scheduled.first_epoch <= epoch <= scheduled.last_epoch
    ]


def apply_changes(tiles: Tensor, changes: list[tuple[Transform, Tensor]], *, share: slice = slice(None)) -> Tensor:
    """Return `tiles` ``(n_tiles, size, size, 3)`` uint8, which are `share` of the batch that was drawn for, after `changes`."""
    for transform, drawn in changes:
        tiles = transform.apply(tiles, drawn[share].to(tiles.device, non_blocking=True))
    return tiles
