"""How much of a core the loop had no time for anything else with."""

import os
import threading
import time
from typing import Any

import pytest

from viamillipede.aio import waiting
from viamillipede.aio.waiting import Core
from viamillipede.config import MIB, MS_US
from viamillipede.protocol.waits import CORE_BUSY


def spin(seconds: float) -> None:
    """Use a core, as far as there is one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def measured(work: Any) -> Core:
    """A core over the time that this takes."""
    began = time.monotonic_ns()
    core = Core(0)
    work()
    core.sample((time.monotonic_ns() - began) // 1000)
    return core


def test_a_busy_thread_had_no_time_to_wait_however_many_others_there_are() -> None:
    assert CORE_BUSY < measured(lambda: spin(0.2)).share <= 1


def test_a_thread_that_waits_has_time() -> None:
    core = measured(lambda: time.sleep(0.3))
    assert core.share < 0.5, "though it may have waited for a core for a moment"
    assert core.share_lately < 0.05


def test_other_threads_are_not_what_the_loop_does() -> None:
    """But they use a core too, which the user may want to know."""

    def others() -> None:
        threads = [threading.Thread(target=os.urandom, args=(64 * MIB,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    core = measured(others)
    assert core.share < CORE_BUSY and core.share_lately > 0.01


def test_where_nobody_tells_who_waits_for_a_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for content in ("", "1\n", "a b c\n"):
        (tmp_path / "schedstat").write_text(content)
        monkeypatch.setattr(waiting, "_RUNS", str(tmp_path / "schedstat"))
        assert 0 < measured(lambda: spin(0.05)).share <= 1
    monkeypatch.setattr(waiting, "_RUNS", str(tmp_path / "nothing"))
    assert 0 < measured(lambda: spin(0.05)).share <= 1


def test_the_time_that_was_waited_for_a_core_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    file = tmp_path / "schedstat"
    monkeypatch.setattr(waiting, "_RUNS", str(file))
    file.write_text("5 1000000000 3\n")
    core = Core(0)
    file.write_text("5 1090000000 4\n")
    assert core.sample(100 * MS_US) >= 0.9
    assert core.sample(200 * MS_US) < 0.5
