import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

from histo_mlflow.base.liveness import Process, giving_signs


def test_a_process_is_known_by_more_than_its_number() -> None:
    own = Process.of(os.getpid())
    assert own.is_local
    assert not own.is_gone
    assert replace(own, started="1").is_gone, "its number was given again"
    assert not replace(own, host="renamed").is_gone
    for elsewhere in (replace(own, namespace="pid:[1]"), replace(own, boot="another start")):
        assert not elsewhere.is_local
        assert not replace(elsewhere, started="1").is_gone, "nobody can know from here"


def test_a_zombie_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert not process.is_gone
    child.kill()
    end = time.monotonic() + 20
    while not process.is_gone and time.monotonic() < end:
        time.sleep(0.01)
    assert process.is_gone
    child.communicate()
    assert process.is_gone


def test_signs_are_given_through_errors_and_end_with_the_block() -> None:
    third, given = threading.Event(), []

    def give() -> None:
        given.append(threading.current_thread())
        if len(given) == 3:
            third.set()
        raise ConnectionError("the server is away")

    with giving_signs(give, every_seconds=0.001):
        assert third.wait(20)
    given[0].join(20)
    assert not given[0].is_alive()
