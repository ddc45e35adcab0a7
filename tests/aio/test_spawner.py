"""The process that forks a process per stream: what these are given, how their ends are told, and its own end."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.aio.drive import HOST
from tests.conftest import open_descriptors
from viamillipede.aio import spawner as module
from viamillipede.aio.spawner import Ended, Spawner
from viamillipede.config import GREETING_US, MS_US, Address, RxConfig
from viamillipede.errors import Exit, LocalIOError

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

CONFIG = RxConfig(keep=True, streams=4, command=("cat",), wait_us=5, metrics=Address(HOST, 1), names="db*")
Serve = Callable[[RxConfig, socket.socket, str], int]


def until_told(_config: RxConfig, doorway: socket.socket, _label: str) -> int:
    """A stream that ends with the status that it is told, or 5 when nobody can tell it."""
    told = doorway.recv(100)
    return int(told) if told else 5


@pytest.fixture(autouse=True)
def plain_signals() -> Iterator[None]:
    """As in a program that has had no loop yet: what is forked gets them, too."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in module._SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def spawning(serve: Serve = until_told, forget: Callable[[], None] = lambda: None) -> Iterator[Spawner]:
    """A spawner, that must have ended after its close."""
    spawner = Spawner(CONFIG, serve, forget)
    try:
        yield spawner
    finally:
        spawner.close()
        assert not psutil.pid_exists(spawner.pid)


def ended(spawner: Spawner) -> Ended:
    """The next stream that does."""
    found = spawner.ended()
    assert found is not None
    return found


def test_streams_end_with_their_own_statuses_in_any_order() -> None:
    with spawning() as spawner:
        doorways = dict(spawner.start(f"stream {number}") for number in range(3))
        assert len(doorways) == 3
        for number, status in zip(reversed(doorways), (0, 7, 255), strict=True):
            doorways[number].send(b"%d" % status)
            assert ended(spawner) == Ended(number, status)
            doorways[number].close()
        assert not psutil.Process(spawner.pid).children(), "nobody is left, not even a zombie"


def test_a_stream_knows_what_it_is_for(tmp_path: Path) -> None:
    def tell(config: RxConfig, doorway: socket.socket, label: str) -> int:
        doorway.send(repr((config.keep, config.wait_us, config.metrics, config.names, label)).encode())
        doorway.send(repr(sorted(open_descriptors())).encode())
        doorway.send(repr((doorway.fileno(), os.getsid(0), os.getppid())).encode())
        doorway.send(repr([int(signal.getsignal(number)) for number in module._SIGNALS]).encode())  # type: ignore[arg-type]
        doorway.send(repr(signal.pthread_sigmask(signal.SIG_BLOCK, [])).encode())
        return 0

    before = open_descriptors()
    with spawning(tell) as spawner:
        number, doorway = spawner.start("db1")
        with doorway:
            assert ended(spawner) == Ended(number, 0)
            said = [doorway.recv(10_000).decode() for _ in range(5)]
        assert said[0] == repr((False, GREETING_US, None, "db*", "db1"))
        fd, session, parent = eval(said[2])
        assert set(eval(said[1])) - before.keys() == {fd}, "its doorway, and nothing of the spawner"
        assert session == parent == spawner.pid, "a signal from the terminal is for its grandparent"
        assert eval(said[3]) == [signal.SIG_DFL] * 3 + [signal.SIG_IGN] * 2, "no dump before there is one to show"
        assert said[4] == "set()"


def test_only_the_parent_has_what_only_it_shall_have(tmp_path: Path) -> None:
    with spawning(forget=lambda: (tmp_path / str(os.getpid())).touch()) as spawner:
        spawner.start("one")[1].close()
        assert ended(spawner).status == 5
    assert [path.name for path in tmp_path.iterdir()] == [str(spawner.pid)]


@pytest.mark.parametrize(
    "error, status, words",
    [
        (LocalIOError("no room"), 7, "viamillipede rx one: no room"),
        (ZeroDivisionError("made by a test"), 1, "viamillipede rx one: unexpected ZeroDivisionError: made by a test"),
    ],
)
def test_what_a_stream_raises_is_its_status(error: Exception, status: int, words: str, capfd: Any) -> None:
    def fail(*_: Any) -> int:
        raise error

    with spawning(fail) as spawner:
        spawner.start("one")[1].close()
        assert ended(spawner) == Ended(1, status)
    assert capfd.readouterr().err.startswith(words)


# Signals ----------------------------------------------------------------------------------------------------


def test_a_signal_is_for_all_streams_and_not_for_the_spawner() -> None:
    with spawning() as spawner:
        doorways = [spawner.start("one")[1] for _ in range(3)]
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            spawner.signal(number)
        spawner.signal(signal.SIGTERM)
        assert {ended(spawner).status for _ in doorways} == {128 + signal.SIGTERM}
        last, doorway = spawner.start("still there")
        doorway.send(b"3")
        assert ended(spawner) == Ended(last, 3)
        for each in (doorway, *doorways):
            each.close()


def test_no_stream_is_too_young_for_a_signal() -> None:
    """It is sent while the stream is being forked: it must not get lost."""
    with spawning() as spawner:
        for _ in range(30):
            _, doorway = spawner.start("one")
            spawner.signal(signal.SIGTERM)
            with doorway:
                assert ended(spawner).status == 128 + signal.SIGTERM


def test_signals_for_the_spawner_itself_are_its_parents_business() -> None:
    with spawning() as spawner:
        for status in (1, 0):
            _, doorway = spawner.start("one")
            doorway.send(b"%d" % status)
            assert ended(spawner).status == status
            doorway.close()
            for number in module._SIGNALS:
                os.kill(spawner.pid, number)


# The end ----------------------------------------------------------------------------------------------------


def test_the_end_of_the_parent_is_left_to_the_streams(tmp_path: Path) -> None:
    """They hear of it at their doorways, and have time; nobody signals them meanwhile, nor spins."""

    def slow(_config: RxConfig, doorway: socket.socket, _label: str) -> int:
        assert doorway.recv(1) == b""
        time.sleep(0.4)
        (tmp_path / "done").touch()
        return 0

    with spawning(slow) as spawner:
        spawner.start("one")[1].close()
        began_s = time.monotonic()
        process = psutil.Process(spawner.pid)
        before_s = process.cpu_times().user + process.cpu_times().system
        spawner._control.close()  # as its parent's end does
        os.waitid(os.P_PID, spawner.pid, os.WEXITED | os.WNOWAIT)
        assert time.monotonic() - began_s >= 0.3
        assert (tmp_path / "done").exists()
        used_s = process.cpu_times().user + process.cpu_times().system - before_s
        assert used_s < 0.1


def test_a_stream_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stubborn(*_: Any) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / "begun").touch()
        time.sleep(60)
        return 0

    monkeypatch.setattr(module, "END_US", 200 * MS_US)
    with spawning(stubborn) as spawner:
        _, doorway = spawner.start("one")
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        (stream,) = psutil.Process(spawner.pid).children()
        doorway.close()
        began_s = time.monotonic()
    assert 0.2 <= time.monotonic() - began_s < 10
    assert not stream.is_running()


@pytest.mark.parametrize("reads", [True, False])
def test_the_end_of_the_spawner_is_told(reads: bool) -> None:
    """Also when it had not read all that it was told."""
    with spawning() as spawner:
        if not reads:
            os.kill(spawner.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, spawner.pid, os.WSTOPPED)
            spawner.signal(signal.SIGTERM)
        os.kill(spawner.pid, signal.SIGKILL)
        assert spawner.ended() is None
        with pytest.raises(BrokenPipeError):
            spawner.signal(signal.SIGTERM)


# What cannot be ---------------------------------------------------------------------------------------------


def test_a_stream_that_cannot_be_forked_has_ended(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    real = os.fork
    forks: list[None] = []

    def fork() -> int:
        forks.append(None)
        if len(forks) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real()

    monkeypatch.setattr(os, "fork", fork)
    with spawning() as spawner:
        number, doorway = spawner.start("too much")
        assert ended(spawner) == Ended(number, Exit.LIMIT)
        doorway.setblocking(True)
        assert doorway.recv(1) == b""
        doorway.close()
        number, doorway = spawner.start("later")
        doorway.send(b"0")
        assert ended(spawner) == Ended(number, 0)
        doorway.close()
    assert capfd.readouterr().err == "viamillipede rx: cannot begin a stream: Resource temporarily unavailable\n"


def test_whatever_is_raised_in_the_spawner_stays_in_it(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """A forked process that returned would be a second program."""

    def fail(_self: object) -> int:
        raise ZeroDivisionError("made by a test")

    monkeypatch.setattr(module._Forker, "run", fail)
    parent = os.getpid()
    with spawning() as spawner:
        assert os.getpid() == parent
        assert spawner.ended() is None
        assert os.waitid(os.P_PID, spawner.pid, os.WEXITED | os.WNOWAIT).si_status == Exit.UNEXPECTED  # type: ignore[union-attr]
    assert "unexpected ZeroDivisionError" in capfd.readouterr().err
