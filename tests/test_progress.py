"""How far work has come, in a terminal and in a log."""

import io
import time

import pytest

from histo_mlflow.base import progress
from histo_mlflow.base.progress import Bar, in_time
from histo_mlflow.console import say


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (119, "119 s"), (121, "2 min"), (7190, "120 min"), (12_000, "3 h 20 min"), (190_000, "2 d 4 h")],
)
def test_time_in_words(seconds: float, words: str) -> None:
    assert in_time(seconds) == words


def test_a_log_gets_a_line_now_and_then_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.2)
    for k in Bar(range(10), desc="validate", unit="tile"):
        time.sleep(0.05)
        if k == 4:
            say("in between")
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert 1 <= len(lines) <= 3, lines
    assert "\r" not in said.err
    assert said.out == "in between\n"
    done = int(lines[0].split()[1])
    assert lines[0].startswith(f"validate: {done} of 10 tiles in 0 s, {10 * done} %, about 0 s left")


def test_short_work_says_nothing_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(Bar(range(3), desc="short")) == [0, 1, 2]
    with Bar[None](total=5, desc="bytes", unit="B", unit_scale=True) as bar:
        bar.update(5)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    for _ in Bar(range(3), desc="epoch 2/9 (3 min left in all)"):
        pass
    shown = terminal.getvalue()
    assert "epoch 2/9 (3 min left in all):   0%|" in shown
    assert shown.endswith("\r")


def test_one_that_is_switched_off_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert list(Bar(range(3), disable=True)) == [0, 1, 2]
    assert terminal.getvalue() == ""
