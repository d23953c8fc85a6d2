"""Small texts that others have written."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from histo_mlflow.base.plain_values import build_plain, parse_json, read_small, shorten
from histo_mlflow.errors import OptionError
from histo_mlflow.evaluation.costs import read_costs


@dataclass(frozen=True)
class _Facts:
    names: tuple[str, ...]
    share: float
    limit: float | None = None
    counts: dict[str, list[int]] = field(default_factory=dict)


def test_values_come_as_the_dataclass_says() -> None:
    built = build_plain(_Facts, {"names": ["a", "b"], "share": 1, "counts": {"a": [1, 2]}, "more": 0})
    assert built == _Facts(("a", "b"), 1.0, None, {"a": [1, 2]})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "not a mapping"),
        ({"names": ["a"]}, "share is missing"),
        ({"names": "ab", "share": 1}, "names=ab is not tuple"),
        ({"names": [1], "share": 1}, "names=1 is not str"),
        ({"names": [], "share": True}, "share=True is not float"),
        ({"names": [], "share": 10**400}, r"share=1000+\.\.\. is not float"),
        ({"names": [], "share": 10**5000}, r"share=\(int\) is not float"),
        ({"names": [], "share": 1, "limit": "x"}, "limit=x is not float"),
        ({"names": [], "share": 1, "counts": {"a": 3}}, "counts=3 is not list"),
    ],
)
def test_values_of_another_kind_are_refused(content: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        build_plain(_Facts, content)


def test_what_is_no_small_text_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_text("x" * 11)
    for name, reason in (("pipe", "no such file"), (".", "no such file"), ("large", "larger than 10 bytes")):
        with pytest.raises(ValueError, match=reason):
            read_small(tmp_path / name, max_bytes=10)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)


def test_what_is_shown_is_short_and_steers_no_terminal() -> None:
    assert shorten("Schleimhäute") == "Schleimhäute"
    assert shorten("\x1b[2J\n") == r"'\x1b[2J\n'"
    assert len(shorten("x" * 1000)) == 60


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("TUM: &a {NORM: 1}\nNORM: *a", "holds an alias"),
        ("TUM: " + "[" * 5000, "nested too deeply"),
        ("TUM: !!int ''", "holds a tag"),
        ("TUM: {NORM: 1, NORM: 2}", "NORM stands there twice"),
        ("TUM: {NORM: 2001-99-99}", "is not a yaml of costs"),
        ("TUM: {NORM: 0x" + "f" * 5000 + "}", r"is \(int\); give a number"),
        ("? 0x" + "f" * 5000 + "\n: {NORM: 1}", "no class"),
        ("TUM: {NORM: 1e300}", "number from 0 to 1e.09"),
        ("false", "not a mapping"),
        ("#" * 100_000, "larger than 65536 bytes"),
    ],
)
def test_bad_costs_are_refused_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "costs.yaml").write_text(text)
    with pytest.raises(OptionError, match=reason) as caught:
        read_costs(str(tmp_path / "costs.yaml"), ("TUM", "NORM"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
