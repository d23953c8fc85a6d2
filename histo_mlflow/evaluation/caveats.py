"""What a reader must know before believing a figure, as data: one list for page, summary, tags, terminal and card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # findings hold caveats
    from histo_mlflow.evaluation.findings import Findings

LEAK_NOTE = "leak to the test set allowed"
"""How the note begins that a set carries some tiles of which are test tiles too."""

OPTIMISTIC_SPLIT = "tile-level split"
"""What the words on a split hold where tiles of one patient may lie on both of its sides."""


@dataclass(frozen=True)
class Caveat:
    """One thing that limits what figures say.

    Attributes:
        name: In files and tags.
        words: A sentence.
        is_grave: Whether the figures then say nothing about new tiles.
    """

    name: str
    words: str
    is_grave: bool = False


def learnt_from(whose: str = "the model") -> Caveat:
    """Return the caveat that a model is scored on tiles that it has learnt from."""
    return Caveat("learnt_from_these_tiles", f"{whose} has learnt from these very tiles", is_grave=True)


def shared_tiles(words: str) -> Caveat:
    """Return the caveat that test tiles are among those for training; `words` say how and why that is allowed."""
    return Caveat("shared_tiles", f"some of these tiles, or copies of them, are among the training tiles ({words})")


def shared_groups(n_shared: int, n_groups: int) -> Caveat:
    """Return the caveat that patients or slides of the test tiles are among those of the training tiles."""
    return Caveat(
        "shared_groups",
        f"{n_shared} of the {n_groups} groups (patients or slides) here are named as groups of the training tiles are",
    )


def other_scale(words: str) -> Caveat:
    """Return the caveat that tiles and model differ in scale; `words` say how that was met."""
    return Caveat("other_scale", words)


def scale_not_stated(whose: str) -> Caveat:
    """Return the caveat that nobody has said how much tissue a tile shows."""
    return Caveat("scale_not_stated", f"the scale of {whose} is not stated, so nobody has checked that both are the same")


def caveats_of(findings: Findings) -> tuple[Caveat, ...]:
    """Return all caveats of a scored split, the gravest first: those noted when it was scored, and those that figures tell."""
    found = [*findings.details.caveats, *_of_tiles(findings), *_of_figures(findings)]
    return tuple(sorted(found, key=lambda caveat: not caveat.is_grave))


def describe_caveats(caveats: tuple[Caveat, ...]) -> str:
    """Return them as one line, or "none"."""
    return "; ".join(caveat.words for caveat in caveats) or "none"


def as_json(caveats: tuple[Caveat, ...]) -> list[dict[str, Any]]:
    """Return the caveats as what JSON can hold."""
    return [vars(caveat) for caveat in caveats]


def from_json(content: list[Mapping[str, Any]]) -> tuple[Caveat, ...]:
    """Return what `as_json` was given."""
    return tuple(Caveat(each["name"], each["words"], each["is_grave"]) for each in content)


def _of_tiles(findings: Findings) -> list[Caveat]:
    about, found = findings.about, []
    if about.is_synthetic:
        found.append(Caveat("synthetic", "these are synthetic drawings, not tissue: no figure says anything about tissue"))
    if about.split == "oof":
        words = (
            "each fold chose its epoch (a head its C) on its own tiles: these figures are somewhat optimistic (nested: below)"
        )
        found.append(Caveat("selected_on_these_tiles", words))
    elif about.is_selected_on:
        found.append(Caveat("selected_on_these_tiles", "these tiles have selected the model, so its figures are optimistic"))
    elif about.looks > 1:
        found.append(
            Caveat(
                "looked_at_before",
                f"models were scored {about.looks} times on this set: what was chosen by these figures is optimistic",
            )
        )
    if about.is_selected_on and OPTIMISTIC_SPLIT in findings.details.split_unit:
        words = "the split goes by the tile: tiles of one patient may lie on both sides, which makes the figures optimistic"
        found.append(Caveat("tile_level_split", words))
    return found


def _of_figures(findings: Findings) -> list[Caveat]:
    predictions, found = findings.predictions, []
    if not findings.evaluation.overall["balanced_accuracy"].has_interval:
        n_units = "tiles" if predictions.groups is None else f"groups ({len(np.unique(predictions.groups))})"
        found.append(Caveat("no_interval", f"too few {n_units} for an interval: how far chance reaches is not known"))
    elif predictions.groups is None:
        found.append(
            Caveat("no_groups", "no patients or slides are known: intervals take tiles as independent and are too narrow")
        )
    if missing := [row.name for row in findings.evaluation.per_class if row.n == 0]:
        found.append(
            Caveat("classes_missing", f"no tile of {', '.join(missing)} is among these: nothing is said of finding it")
        )
    return found
