"""Bars on a real store: how decisions on a set are counted, and what is said of a bar that was changed."""

from pathlib import Path

from mlflow import MlflowClient

from histo_mlflow.tracking.bars import BAR, Bar, describe_bar, read_bars, write_bar
from histo_mlflow.tracking.decisions import REFUSED, Decision, carry_out, read_history
from histo_mlflow.tracking.registry import ask_to_register
from histo_mlflow.tracking.store import open_store

NAME = "histo-b3"


def _decide(fingerprint: str, *, is_finished: bool = True) -> int:
    """Decide on a set and return which decision on it that was."""

    def make_bar(look: int) -> Bar:
        return Bar("2", "1", fingerprint, {"margin": 0.01}, "a method", look, 0.025)

    bar, kept = write_bar(open_store(), NAME, fingerprint, make_bar)
    if is_finished:
        evidence = {"test_data_fingerprint": fingerprint, BAR: kept}
        carry_out(open_store(), NAME, Decision(REFUSED, "2", None, "worse", evidence=evidence))
    return bar.look


def test_decisions_are_counted_by_set_and_paid_for_even_if_cut_short(work: Path) -> None:
    ask_to_register(open_store(), NAME)
    assert [_decide("a" * 64), _decide("b" * 64, is_finished=False), _decide("a" * 64), _decide("b" * 64)] == [1, 1, 2, 2]
    client = MlflowClient()
    for tag in read_bars(client, NAME):
        client.delete_registered_model_tag(NAME, tag)
    assert _decide("a" * 64) == 3, "who deletes bars gets no look back"


def test_a_bar_that_was_changed_or_deleted_is_told(work: Path) -> None:
    ask_to_register(open_store(), NAME)
    for _ in range(3):
        _decide("a" * 64)
    client = MlflowClient()
    tags = list(read_bars(client, NAME).items())
    client.set_registered_model_tag(NAME, tags[0][0], tags[0][1].replace("0.01", "0.9"))
    client.delete_registered_model_tag(NAME, tags[1][0])
    said = [describe_bar(each, read_bars(client, NAME))[0] for each in read_history(open_store(), NAME)]
    assert [words.startswith("TAMPERED: histo.bar.") for words in said] == [True, True, False]
    assert "margin=0.01; decision 3 on its set, error 2.500%" in said[2]
    assert describe_bar(Decision(REFUSED, "2", None, "by hand"), {}) == []
