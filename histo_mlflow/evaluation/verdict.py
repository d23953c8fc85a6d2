"""What is to be thought of a scored model, in one sentence: made here for terminal, page, card, comparison and gate alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from histo_mlflow.base.counting import many
from histo_mlflow.evaluation.caveats import caveats_of
from histo_mlflow.evaluation.intervals import QUANTILE, Estimate
from histo_mlflow.evaluation.limits import wilson_limits
from histo_mlflow.evaluation.wording import in_words, signed

if TYPE_CHECKING:
    from histo_mlflow.evaluation.findings import Findings
    from histo_mlflow.evaluation.gate import Ruling
    from histo_mlflow.evaluation.paired import Comparison
    from histo_mlflow.evaluation.predictions import Predictions

SPLITS = {"val": "validation", "test": "test", "oof": "out-of-fold"}
"""What the scored splits are called, by name."""

_MOST = 0.9  # of all tiles called one class: said, where the model is no better than chance


class Sign(Enum):
    """What a reader sees first: a symbol and a word, for colour alone is not seen by all."""

    GOOD = ("✓", "Holds")
    DOUBT = ("!", "Caution")
    BAD = ("✗", "Fails")
    NOTHING = ("?", "Shows nothing")

    @property
    def symbol(self) -> str:
        """One letter."""
        return self.value[0]

    @property
    def word(self) -> str:
        """One or two words."""
        return self.value[1]


@dataclass(frozen=True)
class Verdict:
    """What is to be thought of a model, or of two.

    Attributes:
        sign: At a glance.
        sentence: With figures, without a full stop.
        next_step: What to do now, a sentence.
        label: What it comes to, in a word or two; "" for the word of the sign.
    """

    sign: Sign
    sentence: str
    next_step: str
    label: str = ""

    @property
    def word(self) -> str:
        """What it comes to, in a word or two."""
        return self.label or self.sign.word

    def describe(self) -> str:
        """Return sign and sentence in one line."""
        return f"{self.sign.symbol} {self.word}: {self.sentence}"


_NEXT = {
    "learn": "Look at the learning curves, check the labels with `histo audit`, and try pretrained weights, more "
    "epochs or another learning rate.",
    "colour": "Try pretrained weights, more epochs or more tiles, and stain augmentation: colour alone tells more.",
    "elsewhere": "Score it on tiles of another laboratory or scanner, where colours differ: `histo evaluate`.",
    "baselines": "Score it with `histo evaluate` in the store that keeps its training run, which holds the colour baselines.",
    "others": "Score it on tiles that it has not learnt from: `histo evaluate --data OTHER_TILES`.",
    "other tiles": "Compare them on tiles that neither has learnt from: `histo compare A B --data OTHER_TILES`.",
    "new": "Score it once on tiles that had no part in its making: `histo evaluate --data TEST_TILES`.",
    "tissue": "Train on tissue: `--data FOLDER` or `--data TILES.npz`.",
    "groups": "Collect tiles of more patients; 20 groups give an interval.",
    "decide": "Use it (`histo predict`, `histo slide`); where another version is in Production, let the gate decide: "
    "`histo promote --test-data SET`.",
}


def verdict_of(findings: Findings) -> Verdict:
    """Return what is to be thought of the model of a scored split."""
    about, caveats = findings.about, caveats_of(findings)
    # Of features, and of tiles that nobody has at hand, there is no colour.
    colour = {name: each["balanced_accuracy"].value for name, each in findings.details.baselines.items()}
    of_colour = colour if colour or about.tile_size_px else None
    balanced, predictions = findings.evaluation.overall["balanced_accuracy"], findings.predictions
    tile = f"{'synthetic ' if about.is_synthetic else ''}{SPLITS[about.split]} tile"
    found = _judge(balanced, predictions, of_colour, tile)
    if grave := [caveat.words for caveat in caveats if caveat.is_grave]:
        figure = _describe_figure(balanced, predictions, "tile")
        return Verdict(Sign.NOTHING, f"Says nothing about new tiles, for {'; '.join(grave)}: {figure}", _NEXT["others"])
    if about.is_synthetic and found.sign is not Sign.BAD:
        sentence = (
            f"Nothing about tissue, for the tiles are synthetic. On these: {found.sentence[0].lower()}{found.sentence[1:]}"
        )
        return Verdict(Sign.NOTHING, sentence, _NEXT["tissue"])
    if found.sign is Sign.GOOD and about.is_selected_on:
        return replace(found, next_step=_NEXT["new"])
    return found


def _judge(balanced: Estimate, predictions: Predictions, of_colour: Mapping[str, float] | None, tile: str) -> Verdict:
    """Return how the balanced accuracy stands to chance, and to that of classifiers that see colour alone, by name.

    Better than chance, or clearly ahead, means: beyond the noise that the 95 % interval tells of. Where groups are too few for
    an interval, each counts as one tile, as if its tiles were all the same. `of_colour` is None where there is no colour.
    """
    low, chance = low_end(balanced, predictions), chance_level(predictions)
    figure = _describe_figure(balanced, predictions, tile)
    if not low > chance and balanced.value > chance and not balanced.has_interval and predictions.groups is not None:
        words = f"Not shown to be better than chance ({chance:.3f}): {figure}"
        return Verdict(Sign.DOUBT, words, _NEXT["groups"])
    if not low > chance:
        return Verdict(
            Sign.BAD, f"No better than chance ({chance:.3f}): {figure}{_describe_favourite(predictions)}", _NEXT["learn"]
        )
    ahead = f"learly ahead of chance ({chance:.3f})"
    if of_colour is None:
        found = Verdict(Sign.GOOD, f"C{ahead}, not compared with colour alone: {figure}", _NEXT["decide"])
    elif not of_colour:
        words = f"C{ahead}, but not compared with colour alone, for no baselines are at hand: {figure}"
        return Verdict(Sign.DOUBT, words, _NEXT["baselines"])
    else:
        name = max(of_colour, key=lambda each: of_colour[each])
        colour = f"({name}: {of_colour[name]:.3f})"
        if balanced.value < of_colour[name]:
            return Verdict(Sign.BAD, f"Worse than what colour alone tells {colour}: {figure}", _NEXT["colour"])
        if not low > of_colour[name]:
            words = f"C{ahead}, but not clearly ahead of colour alone {colour}: {figure}"
            return Verdict(Sign.DOUBT, words, _NEXT["elsewhere"])
        found = Verdict(Sign.GOOD, f"C{ahead} and of colour alone {colour}: {figure}", _NEXT["decide"])
    if balanced.has_interval:
        return found
    return replace(found, sign=Sign.DOUBT, next_step=_NEXT["groups"])


def chance_level(predictions: Predictions) -> float:
    """Return the balanced accuracy of whoever calls all tiles the same, or draws lots: one part of the classes that occur."""
    return 1 / len(np.unique(predictions.labels))


def low_end(balanced: Estimate, predictions: Predictions) -> float:
    """Return the lower end of the interval; where groups are too few for one, as if the tiles of each were all the same."""
    if balanced.has_interval or predictions.groups is None:
        return balanced.low
    return wilson_limits(balanced.value, 0.0, len(np.unique(predictions.groups)), QUANTILE)[0]


def _describe_figure(balanced: Estimate, predictions: Predictions, tile: str) -> str:
    few = ""
    if predictions.groups is not None and not balanced.has_interval:
        few = f" of {many(len(np.unique(predictions.groups)), 'group')}, too few for an interval: each counts as one tile"
    return f"balanced accuracy {in_words(balanced)} on {many(len(predictions.labels), tile)}{few}"


def _describe_favourite(predictions: Predictions) -> str:
    """Return which class nearly all tiles are called, if there is one."""
    shares = np.bincount(predictions.predicted, minlength=len(predictions.classes)) / len(predictions.labels)
    most = int(shares.argmax())
    if shares[most] < _MOST or len(np.unique(predictions.labels)) < 2:
        return ""
    which = "every tile" if shares[most] == 1 else f"{100 * shares[most]:.0f} % of the tiles"
    return f"; it calls {which} {predictions.classes[most]}"


def verdict_on_difference(comparison: Comparison, ruling: Ruling, grave: Sequence[str] = ()) -> Verdict:
    """Return whether the tiles tell two models apart, and whether the gate would let B replace A, in one sentence.

    Which is better and which may replace the other are two questions: a candidate may be better in balanced accuracy and lose a
    class, or not be told apart from the other and be shown to be no worse than the margins allow. Neither is answered where
    there is something `grave`: why the figures of one of the two say nothing about new tiles.
    """
    difference = comparison.differences["balanced_accuracy"]
    words = f"balanced accuracy of B minus A {signed(difference)}"
    if grave:
        return Verdict(Sign.NOTHING, f"Says nothing about new tiles, for {'; '.join(grave)}: {words}", _NEXT["other tiles"])
    if difference.low > 0:
        said = "B is better"
    elif difference.high < 0:
        said = "A is better"
    else:
        said = "These tiles don't tell them apart"
    if ruling.is_passed:
        sign = Sign.DOUBT if said == "A is better" else Sign.GOOD
        shown = f"{said}, and B is shown to be no worse than A by more than the margins allow: {words}"
        return Verdict(sign, shown, _NEXT["decide"], "B may replace A")
    lacking = "; ".join(each.removeprefix("NOT MET: ") for each in ruling.reasons if each.startswith("NOT MET"))
    step = "Keep A." if said == "A is better" else "Keep A, or compare on more labelled tiles."
    sign = {"A is better": Sign.BAD, "B is better": Sign.DOUBT}.get(said, Sign.NOTHING)
    joint = "but" if said == "B is better" else "and"
    shown = f"{said}, {joint} it is not shown that B is no worse than A: {words}; not met: {lacking}"
    return Verdict(sign, shown, step, "Keep A")


def as_json(verdict: Verdict) -> dict[str, str]:
    """Return the verdict as what JSON can hold."""
    return {"sign": verdict.sign.name, "sentence": verdict.sentence, "next_step": verdict.next_step, "label": verdict.label}


def from_json(content: Mapping[str, str]) -> Verdict:
    """Return what `as_json` was given."""
    return Verdict(Sign[content["sign"]], content["sentence"], content["next_step"], content.get("label", ""))
