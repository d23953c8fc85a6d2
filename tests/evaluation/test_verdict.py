"""One sentence on a model, wherever it is said, and what limits it; each of its cases is made here from labelled tiles."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from histo_mlflow.evaluation.caveats import Caveat, caveats_of, learnt_from
from histo_mlflow.evaluation.findings import About, Details, Findings, evaluate_baselines
from histo_mlflow.evaluation.gate import judge, object_to
from histo_mlflow.evaluation.metrics import evaluate_predictions
from histo_mlflow.evaluation.options import GateOptions
from histo_mlflow.evaluation.paired import compare_predictions
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.verdict import Sign, verdict_of, verdict_on_difference

CLASSES = ("MUS", "STR", "TUM")
LABELS = np.repeat([0, 1, 2], 100)
ABOUT = About(split="test", source="s", fingerprint="f", is_synthetic=False, tile_size_px=28, models=("m",), looks=1)


def _said(share: float, *, groups: np.ndarray | None = None) -> Predictions:
    """That share of each class is called rightly, evenly spread over the groups."""
    is_right = np.arange(300) % 100 < 100 * share
    called = np.where(is_right, LABELS, (LABELS + 1) % 3)
    return Predictions(LABELS, 0.9 * np.eye(3)[called] + 0.1 / 3, CLASSES, groups)


def _find(said: Predictions, colour: float | None = 0.5, about: About = ABOUT, caveats: tuple[Caveat, ...] = ()) -> Findings:
    baselines: Mapping[str, Predictions] = {} if colour is None else {"colour histogram": _said(colour)}
    details = Details(baselines=evaluate_baselines(baselines), caveats=caveats, split_unit="the tile (tile-level split)")
    return Findings(evaluate_predictions(said), np.arange(len(said.labels)), about, details)


@pytest.mark.parametrize(
    ("share", "colour", "sign", "words"),
    [
        (0.95, 0.5, Sign.GOOD, "Clearly ahead of chance (0.333) and of colour alone (colour histogram: 0.500)"),
        (0.95, 0.94, Sign.DOUBT, "not clearly ahead of colour alone (colour histogram: 0.940)"),
        (0.8, 0.94, Sign.BAD, "Worse than what colour alone tells (colour histogram: 0.940)"),
        (0.35, 0.2, Sign.BAD, "No better than chance (0.333)"),
        (0.95, None, Sign.DOUBT, "not compared with colour alone"),
    ],
)
def test_what_is_thought_follows_chance_and_colour(share: float, colour: float | None, sign: Sign, words: str) -> None:
    findings = _find(_said(share), colour)
    verdict = verdict_of(findings)
    assert verdict.sign is sign
    assert words in verdict.sentence
    assert f"balanced accuracy {share:.3f} (" in verdict.sentence, "a figure and its interval"
    assert verdict.describe().startswith(f"{sign.symbol} {sign.word}: "), "a symbol and a word, not a colour"
    assert object_to(findings) == ("" if sign is Sign.GOOD or (sign is Sign.DOUBT and colour) else verdict.sentence), (
        "one voice"
    )


def test_too_few_patients_are_no_failure_and_no_proof() -> None:
    findings = _find(_said(0.8, groups=np.arange(300) % 3))
    verdict = verdict_of(findings)
    assert verdict.sign is Sign.DOUBT
    assert verdict.sentence.startswith("Not shown to be better than chance (0.333): ")
    assert "of 3 groups, too few for an interval" in verdict.sentence
    assert object_to(findings) == verdict.sentence


def test_a_model_of_one_answer_is_named() -> None:
    said = replace(_said(1.0), probabilities=np.tile([0.9, 0.05, 0.05], (300, 1)))
    assert verdict_of(_find(said)).sentence.endswith("it calls every tile MUS")


def test_tiles_that_it_has_learnt_from_say_nothing_whatever_the_figure() -> None:
    findings = _find(_said(0.99), caveats=(learnt_from(),))
    verdict = verdict_of(findings)
    assert verdict.sign is Sign.NOTHING
    assert verdict.sentence.startswith("Says nothing about new tiles, for the model has learnt from these very tiles")
    assert caveats_of(findings)[0].is_grave


def test_synthetic_tiles_say_nothing_of_tissue_and_a_failure_stays_one() -> None:
    demo = replace(ABOUT, is_synthetic=True)
    assert verdict_of(_find(_said(0.95), about=demo)).sign is Sign.NOTHING
    assert verdict_of(_find(_said(0.3), about=demo)).sign is Sign.BAD


def test_of_features_colour_is_not_asked() -> None:
    found = _find(_said(0.95), None, about=replace(ABOUT, tile_size_px=0))
    assert verdict_of(found).sign is Sign.GOOD
    assert object_to(found) == ""


def test_few_groups_leave_a_doubt() -> None:
    verdict = verdict_of(_find(_said(0.95, groups=np.array([f"p{k % 8}" for k in range(300)]))))
    assert verdict.sign is Sign.DOUBT
    assert verdict.sentence.endswith("of 8 groups, too few for an interval: each counts as one tile")


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        (ABOUT, {"no_groups"}),
        (replace(ABOUT, looks=3), {"no_groups", "looked_at_before"}),
        (replace(ABOUT, split="val", looks=0), {"no_groups", "selected_on_these_tiles", "tile_level_split"}),
        (replace(ABOUT, is_synthetic=True), {"no_groups", "synthetic"}),
    ],
)
def test_caveats_are_found(about: About, expected: set[str]) -> None:
    assert {caveat.name for caveat in caveats_of(_find(_said(0.95), about=about))} == expected


def test_classes_without_tiles_and_missing_intervals_are_caveats() -> None:
    said = _said(0.95, groups=np.repeat(["p1", "p2"], 150))
    few = Predictions(said.labels[:200], said.probabilities[:200], CLASSES, np.asarray(said.groups)[:200])
    assert {caveat.name for caveat in caveats_of(_find(few))} == {"no_interval", "classes_missing"}


def test_better_and_fit_to_replace_are_said_together() -> None:
    def compare(old: float, new: float) -> str:
        found = compare_predictions(_said(old), _said(new))
        return verdict_on_difference(found, judge(found, GateOptions())).sentence

    assert compare(0.8, 0.95).startswith("B is better, and B is shown to be no worse")
    assert "it is not shown that B is no worse than A" in compare(0.95, 0.8)
    assert compare(0.95, 0.8).startswith("A is better")
    alike = compare(0.9, 0.9)
    assert alike.startswith("These tiles don't tell them apart")


def test_a_comparison_on_tiles_that_a_model_has_learnt_from_says_nothing() -> None:
    found = compare_predictions(_said(0.8), _said(0.95))
    verdict = verdict_on_difference(found, judge(found, GateOptions()), [learnt_from("B").words])
    assert (verdict.sign, verdict.word) == (Sign.NOTHING, "Shows nothing")
    assert verdict.sentence.startswith(
        "Says nothing about new tiles, for B has learnt from these very tiles: balanced accuracy"
    )
    assert "histo compare A B --data OTHER_TILES" in verdict.next_step


def test_no_interval_of_a_difference_goes_beyond_what_shares_can_differ() -> None:
    """Of each class one model finds one tile of fourteen, and the other all but one."""
    labels, place = np.repeat(np.arange(3), 14), np.tile(np.arange(14), 3)

    def find_first(n: int) -> Predictions:
        called = np.where(place < n, labels, (labels + 1) % 3)
        return Predictions(labels, 0.9 * np.eye(3)[called] + 0.1 / 3, CLASSES, None)

    found = compare_predictions(find_first(1), find_first(13))
    assert [each.high for each in found.sensitivity] == [1.0] * 3
    assert all(0 < each.low < each.value for each in found.sensitivity)
