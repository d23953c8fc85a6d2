"""The process that forks our commands for other tests: what hangs in one must say so, and not hang for want of a thread."""

import os
import signal
from pathlib import Path

from tests.forking import Forks


def test_it_has_one_thread_so_that_no_other_holds_a_lock_while_it_forks(forks: Forks) -> None:
    assert forks.count_threads() == 1


def test_a_command_that_takes_too_long_is_ended_and_tells_where_it_was(work: Path, forks: Forks) -> None:
    log = work / "log"
    forks.start("train", cwd=work, log=log, environment=os.environ)
    assert forks.wait(timeout=1.0) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in log.read_text()
    assert "most recent call first" in log.read_text()
