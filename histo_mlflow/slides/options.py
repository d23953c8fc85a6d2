"""What can be asked of slides: what counts as tissue, how tiles are laid; opens nothing."""

from dataclasses import dataclass

from histo_mlflow.errors import OptionError
from histo_mlflow.options import Options, option, stated

INKS = ("green", "blue", "red", "black")


@dataclass(frozen=True)
class TissueOptions(Options):
    """Tissue.

    It is found on a small picture of the slide (a sixteenth or less), by its colour against the glass.
    """

    least_saturation: float = option(
        0.02,
        "Colour that tissue has at least, between 0 (grey) and 1: lower it if pale tissue is left out, raise it if glass is "
        "taken for tissue.",
        at_least=0,
        below=1,
    )
    most_saturation: float = option(
        0.05,
        "Colour that is always tissue: the threshold found on the slide (Otsu's) is never above it, so that pale tissue beside "
        "strongly stained tissue is kept. 1: as Otsu's method says.",
        above=0,
        at_most=1,
    )
    smallest_tissue_um2: float = option(
        10_000.0,
        "Pieces smaller than this are taken for dirt, in square micrometres; a tile of 224 px at 0.5 is 12,544.",
        at_least=0,
    )
    largest_hole_um2: float = option(
        50_000.0,
        "Holes in tissue up to this size count as tissue (glands, vessels, fat cells), in square micrometres.",
        at_least=0,
    )
    ink: str = option(
        ",".join(INKS),
        f"Colours of pen marks, which are not tissue: some of {', '.join(INKS)}, with commas, or `none`. Leave out the one "
        "that a stain other than H&E has.",
    )

    def __post_init__(self) -> None:
        """Raise `OptionError` for limits that cross, or an ink that is not known."""
        super().__post_init__()
        if self.least_saturation > self.most_saturation:
            raise OptionError(
                f"least_saturation={self.least_saturation:g} is above most_saturation={self.most_saturation:g}; lower it"
            )
        if strangers := [ink for ink in self.inks if ink not in INKS]:
            raise OptionError(f"ink={self.ink}: {strangers[0]!r} is none of {', '.join(INKS)}; write `none` for no ink")

    @property
    def inks(self) -> tuple[str, ...]:
        """The colours of pen marks."""
        return () if self.ink.strip() in {"", "none"} else tuple(part.strip() for part in self.ink.split(","))


@dataclass(frozen=True)
class GridOptions(Options):
    """Tiles on a slide."""

    stride: float = option(
        1.0,
        "From one tile to the next, in tiles: 1 lays them side by side, 0.5 lets them overlap by half, which takes four times "
        "as long.",
        above=0,
        at_most=10,
    )
    least_tissue: float = option(
        0.5, "Share of a tile that must be tissue; 0 takes every tile with any tissue on it.", at_least=0, at_most=1
    )


GLASS, UNANNOTATED = "glass", "unannotated"


@dataclass(frozen=True)
class CutOptions(Options):
    """Tiles from annotations."""

    inside: float = option(
        0.9,
        "Share of a tile that must lie in regions of its class, and in no region of another class.",
        above=0.5,  # so that no tile is of two classes
        at_most=1,
    )
    without_tissue: str = option(
        "none",
        "Classes (with commas) whose tiles are taken however little tissue is found on them, such as fat or glass.",
    )
    background: str = option(
        "none", "Name of a class for tiles that touch no region; from no slide more than of its largest class."
    )
    background_from: str = option(
        GLASS,
        "What the background is: `glass` without any tissue, or tissue that is `unannotated`, which may hold anything that "
        "nobody has drawn.",
        choices=(GLASS, UNANNOTATED),
    )
    at_most: int = option(
        0, "Tiles of each class from each slide, at most, drawn at random; 0: all. It balances classes and slides.", at_least=0
    )

    @property
    def classes_without_tissue(self) -> frozenset[str]:
        """The classes that `without_tissue` names."""
        return frozenset(part.strip() for part in self.without_tissue.split(",")) - {"", "none"}

    @property
    def background_class(self) -> str:
        """The name of the class of the background, "" for none."""
        return stated(self.background) or ""
