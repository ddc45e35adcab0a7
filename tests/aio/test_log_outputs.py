"""A file and the system's log besides standard error: what they hold, and that the stream never waits for them."""

import contextlib
import json
import logging
import os
import re
import select
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from viamillipede.aio import log_outputs
from viamillipede.aio.log import CLOSE_S, ERROR, EVENT, FRAME, LEG, WARNING, Log
from viamillipede.aio.log_outputs import QUEUE_LINES_MAX, FileOutput, Outputs
from viamillipede.errors import UsageError

PATIENCE_S = 10


@contextlib.contextmanager
def logging_to(file: object = "", syslog: bool = False, verbose: int = 1, **others: bool | str) -> Iterator[Log]:
    """A log that is closed at the end."""
    log = Log("rx", verbose, file=str(file), syslog=syslog, **others)  # type: ignore[arg-type]
    try:
        yield log
    finally:
        log.close()


def lines_of(path: Path) -> list[str]:
    """What is in a file, without the times, each of which is looked at."""
    found = []
    for line in path.read_text().splitlines():
        stamp, _, text = line.partition(" ")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", stamp), line
        assert abs(datetime.now().astimezone() - datetime.fromisoformat(stamp)) < timedelta(minutes=10)
        found.append(text)
    return found


def until(condition: Callable[[], object]) -> None:
    """Wait for what a thread will do."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    """The thread of the outputs ends with them."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


# A file -----------------------------------------------------------------------------------------------------


def test_every_line_that_is_said_is_in_the_file_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    path.write_text(f"{datetime.now().astimezone().isoformat(timespec='milliseconds')} from before\n")
    with logging_to(path, label="db1") as log:
        log.say(WARNING, "one\ntwo \x1b \udcff 100 %s")
        log.say(EVENT, "not at this level")
        log.write("a dump\n  of lines\n")
        log.raw("a view's line")
        log.step()
    texts = ["one", r"two \x1b \udcff 100 %s", "a dump", "  of lines", "verbose 2"]
    assert lines_of(path) == ["from before", *(f"viamillipede rx db1: {text}" for text in texts)]
    output, error = capfd.readouterr()
    assert (output, error.splitlines()[0]) == ("", "viamillipede rx db1: one"), "and as ever without a time"
    assert len(error.splitlines()) == len(texts) + 1


def test_the_file_is_for_people_also_beside_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with logging_to(tmp_path / "log", json=True) as log:
        log.say(WARNING, "news")
    assert lines_of(tmp_path / "log") == ["viamillipede rx: news"]
    assert json.loads(capfd.readouterr().err)["text"] == "news"


def test_the_file_has_what_a_full_screen_view_is_given(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with logging_to(tmp_path / "log") as log:
        shown: list[str] = []
        log.screen(shown.append)
        log.say(WARNING, "news")
    assert (lines_of(tmp_path / "log"), shown) == (["viamillipede rx: news"], ["news"])
    assert capfd.readouterr() == ("", "")


def test_a_stderr_without_reader_does_not_end_the_file(tmp_path: Path) -> None:
    saved = os.dup(2)
    with open("/dev/full", "wb", buffering=0) as full:
        os.dup2(full.fileno(), 2)
    try:
        with logging_to(tmp_path / "log", verbose=2) as log:
            log.say(WARNING, "one")
            log.say(EVENT, "two")
            assert log.verbose == 2
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    assert lines_of(tmp_path / "log") == ["viamillipede rx: one", "viamillipede rx: two"]


def test_a_new_file_is_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with logging_to(tmp_path / "log"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o640


def test_a_file_that_was_rotated_away_is_made_anew(tmp_path: Path) -> None:
    path, old = tmp_path / "log", tmp_path / "log.1"
    with logging_to(path) as log:
        log.say(WARNING, "one")
        until(lambda: path.stat().st_size)
        path.rename(old)
        log.say(WARNING, "two")
        until(path.exists)
        until(lambda: path.stat().st_size)
        path.rename(tmp_path / "log.2")
        path.touch()
        log.say(WARNING, "three")
    assert [lines_of(each) for each in (old, tmp_path / "log.2", path)] == [
        [f"viamillipede rx: {text}"] for text in ("one", "two", "three")
    ]


@pytest.mark.parametrize(
    ("name", "reason"), [("no/such/log", "No such file"), (".", "Is a directory"), ("fifo", "No such device")]
)
def test_a_file_that_cannot_be_opened_is_a_usage_error(tmp_path: Path, name: str, reason: str) -> None:
    os.mkfifo(tmp_path / "fifo")  # that nobody reads
    with pytest.raises(UsageError, match=f"^log .*{name}: {reason}.*; name a file that can be written"):
        Log("rx", 1, file=str(tmp_path / name))


def test_the_file_is_not_standard_output(tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    saved = os.dup(1)
    try:
        os.dup2(write_fd, 1)
        with pytest.raises(UsageError, match="log /dev/fd/1: this is standard output, which carries the data"):
            Log("rx", 1, file="/dev/fd/1")
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), 1)
        with logging_to(os.devnull) as log:  # may be both
            log.say(WARNING, "news")
    finally:
        os.dup2(saved, 1)
        for fd in (saved, read_fd, write_fd):
            os.close(fd)


def test_after_the_end_the_file_is_left_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with logging_to(tmp_path / "log") as log:
        log.close()
        log.say(WARNING, "late")
        log.close()
    assert (tmp_path / "log").read_text() == ""
    assert capfd.readouterr().err == "viamillipede rx: late\n"


# What cannot be written -------------------------------------------------------------------------------------


def test_a_full_disk_is_told_once_and_how_much_it_cost(capfd: pytest.CaptureFixture[str]) -> None:
    with logging_to("/dev/full") as log:
        for number in range(5):
            log.say(WARNING, f"line {number}")
    news = [line for line in capfd.readouterr().err.splitlines() if "log /dev/full" in line]
    assert news == [
        "viamillipede rx: log /dev/full: No space left on device; lines are lost until it works again",
        "viamillipede rx: log /dev/full: 5 lines lost: No space left on device",
    ]


@contextlib.contextmanager
def fifo(path: Path) -> Iterator[int]:
    """A FIFO with a reader who may take their time: a file that is full now and then."""
    os.mkfifo(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def drain(fd: int) -> str:
    """What is in the FIFO."""
    found = b""
    while select.select([fd], [], [], 0)[0] and (piece := os.read(fd, 1 << 20)):
        found += piece
    return found.decode()


def test_the_file_says_what_is_missing_in_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with fifo(path) as fd:
        outputs = Outputs("rx", str(path), False)
        outputs.put(WARNING, "x" * 100_000)  # more than it holds: torn, and lost
        outputs.put(WARNING, "lost")
        until(lambda: outputs._queue.unfinished_tasks == 0)
        news = outputs.news()
        heard = drain(fd)
        outputs.put(WARNING, "works")
        news += outputs.close(PATIENCE_S)
        heard += drain(fd)
    first, *others = [line.partition(" ")[2] for line in heard.splitlines()]
    assert first.startswith("viamillipede rx: xxx") and len(heard.splitlines()[0]) == 65536
    why = "2 lines lost: Resource temporarily unavailable"
    assert others == [f"viamillipede rx: {why}", "viamillipede rx: works"]
    assert news[1:] == [f"log {path}: works again, {why}"]


class Hanging:
    """A file on a network file system whose server is dead: writing hangs until `mended`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mended, self.hangs = threading.Event(), threading.Event()
        emit = FileOutput.emit

        def hang(output: FileOutput, record: logging.LogRecord) -> None:
            self.hangs.set()
            assert self.mended.wait(PATIENCE_S)
            emit(output, record)

        monkeypatch.setattr(FileOutput, "emit", hang)


def test_a_dead_file_system_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file, lines = Hanging(monkeypatch), 2 * QUEUE_LINES_MAX
    with logging_to(tmp_path / "log", verbose=FRAME) as log:
        log.say(WARNING, "line 0")
        assert file.hangs.wait(PATIENCE_S)
        for number in range(1, lines):
            log.say(FRAME, f"line {number}")
        assert capfd.readouterr().err.count("\n") == lines, "standard error has it all"
        file.mended.set()
        until(lambda: (tmp_path / "log").exists() and len(lines_of(tmp_path / "log")) == QUEUE_LINES_MAX + 1)
        log.say(FRAME, "line last")
    found, lost = lines_of(tmp_path / "log"), lines - QUEUE_LINES_MAX - 1
    expected = [f"line {number}" for number in range(QUEUE_LINES_MAX + 1)]
    expected += [f"{lost} lines lost: it was too slow", "line last"]
    assert found == [f"viamillipede rx: {text}" for text in expected]
    assert f"works again, {lost} lines lost: it was too slow\n" in capfd.readouterr().err


@pytest.mark.parametrize("lines", [3, QUEUE_LINES_MAX + 3])
def test_a_dead_file_system_holds_the_end_up_for_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], lines: int
) -> None:
    file = Hanging(monkeypatch)
    log = Log("rx", 1, file=str(tmp_path / "log"))
    outputs = log._outputs
    assert outputs is not None
    log.say(WARNING, "line")
    assert file.hangs.wait(PATIENCE_S)
    for _ in range(lines - 1):
        log.say(WARNING, "line")
    started = time.monotonic()
    log.close()
    assert CLOSE_S * 0.9 <= time.monotonic() - started < CLOSE_S + PATIENCE_S / 2
    file.mended.set()  # for the test's own sake: the thread, a daemon, would end with the process
    until(lambda: outputs._queue.unfinished_tasks == 0)
    outputs._listener.stop()
    for account in outputs._accounts:
        account.handler.close()
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == f"viamillipede rx: log: {lines} lines were not written in time"


def test_an_output_of_ours_that_is_broken_is_told_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a mistake")

    monkeypatch.setattr(FileOutput, "emit", fail)
    with logging_to(tmp_path / "log") as log:
        log.say(WARNING, "news")
    assert capfd.readouterr().err.splitlines()[1:] == [
        f"viamillipede rx: log {tmp_path}/log: ValueError: a mistake; lines are lost until it works again",
        f"viamillipede rx: log {tmp_path}/log: 1 line lost: ValueError: a mistake",
    ]


# The system's log -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def daemon(path: Path, monkeypatch: pytest.MonkeyPatch, kind: int = socket.SOCK_DGRAM) -> Iterator[socket.socket]:
    """A syslog daemon that listens here."""
    monkeypatch.setattr(log_outputs, "SYSLOG_SOCKETS", ("/no/such/socket", str(path)))
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(path))
        sock.settimeout(PATIENCE_S)
        yield sock
    path.unlink()


@pytest.mark.parametrize(
    ("level", "severity"), [(ERROR, 3), (WARNING, 4), (EVENT, 5), (LEG, 6), (5, 7), (FRAME, 7), (20, 7), (4, 7)]
)
def test_the_system_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: int, severity: int) -> None:
    with daemon(tmp_path / "s", monkeypatch) as sock, logging_to(syslog=True, verbose=20, label="db1") as log:
        log.say(level, "one\ntwo 100 %s ä")
        heard = [sock.recv(1000).decode() for _ in range(2)]
    head = f"<{3 * 8 + severity}>viamillipede[{os.getpid()}]: rx db1: "
    assert heard == [f"{head}one\0", f"{head}two 100 %s ä\0"], "without a time: the daemon knows it"


def test_a_daemon_that_listens_on_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with daemon(tmp_path / "s", monkeypatch, socket.SOCK_STREAM) as listener:
        listener.listen()
        with logging_to(syslog=True) as log:
            log.say(WARNING, "news")
            listener.accept()[0].close()  # whether anybody is there
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(1000).endswith(b"rx: news\0")


def test_a_daemon_that_comes_back_is_told_what_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with contextlib.ExitStack() as stack:
        with daemon(tmp_path / "s", monkeypatch):
            log = stack.enter_context(logging_to(syslog=True))
        log.say(WARNING, "lost")
        until(lambda: log._outputs is not None and log._outputs._news)
        with daemon(tmp_path / "s", monkeypatch) as sock:
            log.say(WARNING, "works")
            heard = [sock.recv(1000).decode().partition(": ")[2] for _ in range(2)]
            log.close()
    assert heard == ["rx: 1 line lost: No such file or directory\0", "rx: works\0"]
    assert "syslog: works again, 1 line lost: No such file or directory\n" in capfd.readouterr().err


@pytest.mark.parametrize("there", [False, True])
def test_no_daemon_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    with daemon(tmp_path / "gone", monkeypatch):
        pass
    if there:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(str(tmp_path / "gone"))  # closed, but its name is left
    with pytest.raises(
        UsageError, match=r"syslog: nothing listens on /no/such/socket or .*gone; start a syslog daemon"
    ):
        Log("rx", 1, file=str(tmp_path / "log"), syslog=True)


def test_both_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with daemon(tmp_path / "s", monkeypatch) as sock, logging_to(tmp_path / "log", syslog=True) as log:
        log.say(WARNING, "news")
        assert sock.recv(1000).endswith(b": rx: news\0")
    assert lines_of(tmp_path / "log") == ["viamillipede rx: news"]
