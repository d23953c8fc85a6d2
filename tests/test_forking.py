"""The process that forks our commands for other tests: what hangs in one must say so, and not hang for want of a thread."""

import os
import signal
from pathlib import Path

import pytest

from tests.forking import Forks


def test_it_has_one_thread_so_that_no_other_holds_a_lock_while_it_forks(forks: Forks) -> None:
    assert forks.count_threads() == 1


def test_a_command_that_takes_too_long_is_ended_and_tells_where_it_was(work: Path, forks: Forks) -> None:
    log = work / "log"
    forks.start("train", cwd=work, log=log, environment=os.environ)
    assert forks.wait(timeout=1.0) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in log.read_text()
    assert "most recent call first" in log.read_text()


def test_what_a_test_that_was_ended_had_asked_is_no_answer_to_the_next(work: Path, forks: Forks) -> None:
    def end() -> str:
        raise TimeoutError

    pid = forks.start("train", cwd=work, log=work / "log", environment=os.environ)
    # The first answer is waited for no longer, as where a test takes too long; the next are.
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TimeoutError):
        patch.setattr(forks, "_answer", lambda: patch.undo() or end())
        forks.wait(pid)
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    assert forks.run("promote", "--help", cwd=work).returncode == 0
    assert forks.run("promote", "--nothing", cwd=work).returncode == 2
