"""What a person is told: by level, each line with its speaker, and never at the price of the stream."""

import contextlib
import gc
import json
import os
import pty
import re
import select
import time
import tty
from collections.abc import Iterator
from typing import Any

import pytest

from tests.aio.drive import Pipe
from viamillipede.aio.log import (
    CLOSE_S,
    ERROR,
    EVENT,
    FRAME,
    LEG,
    OPERATION,
    RESENT,
    VERBOSE_STEPS,
    WARNING,
    Log,
    utc_now,
)
from viamillipede.config import VERBOSE_DEFAULT, VERBOSE_MAX

LEVELS = (WARNING, EVENT, LEG, RESENT, FRAME, OPERATION)


@contextlib.contextmanager
def stderr_as(fd: int) -> Iterator[None]:
    """Standard error is this descriptor for a while."""
    saved = os.dup(2)
    os.dup2(fd, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("verbose", range(VERBOSE_MAX + 1))
def test_what_is_at_or_below_the_level_is_said(verbose: int, level: int, capfd: pytest.CaptureFixture[str]) -> None:
    Log("rx", verbose).say(level, "news")
    assert capfd.readouterr() == ("", "viamillipede rx: news\n" if level <= verbose else "")


def test_every_line_says_who_speaks(capfd: pytest.CaptureFixture[str]) -> None:
    Log("tx", 1).say(WARNING, "one\ntwo")
    assert capfd.readouterr().err == "viamillipede tx: one\nviamillipede tx: two\n"


@pytest.mark.parametrize("verbose", [0, 20])
def test_an_error_is_said_at_every_level(verbose: int, capfd: pytest.CaptureFixture[str]) -> None:
    Log("tx", verbose).say(ERROR, "the disk is gone")
    assert capfd.readouterr() == ("", "viamillipede tx: the disk is gone\n")


def test_several_streams_are_told_apart(capfd: pytest.CaptureFixture[str]) -> None:
    Log("rx", 1, label="db1").say(WARNING, "complete")
    assert capfd.readouterr().err == "viamillipede rx db1: complete\n"


def test_a_dump_is_written_as_it_is_at_every_level(capfd: pytest.CaptureFixture[str]) -> None:
    Log("rx", 0, label="db1").write("leg  rate\n  0  5 MiB/s\n")
    assert capfd.readouterr() == ("", "leg  rate\n  0  5 MiB/s\n")


def test_texts_of_others_do_not_move_the_cursor(capfd: pytest.CaptureFixture[str]) -> None:
    Log("tx", 1).say(WARNING, "\x1b[2J\x07 a\tb \x9b31m \rä \x7f")
    Log("tx", 1).write("\x1b]0;title\x07\n")
    said, dumped = capfd.readouterr().err.splitlines()
    assert said == r"viamillipede tx: \x1b[2J\x07 a" "\t" r"b \x9b31m \x0dä \x7f"
    assert dumped == r"\x1b]0;title\x07"


def test_text_that_is_no_utf8_is_said_all_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    Log("tx", 1).say(WARNING, "name \udcff")
    assert capfd.readouterr().err == "viamillipede tx: name \\udcff\n"


def test_the_steps_go_through_every_level_and_around(capfd: pytest.CaptureFixture[str]) -> None:
    log, seen = Log("rx", 0), []
    for _ in VERBOSE_STEPS:
        seen.append(log.verbose)
        log.step()
    assert tuple(seen) == VERBOSE_STEPS and log.verbose == 0
    told = [line.removeprefix("viamillipede rx: verbose ") for line in capfd.readouterr().err.splitlines()]
    assert [int(level) for level in told] == [*VERBOSE_STEPS[1:], 0]


@pytest.mark.parametrize(("between", "above"), [(4, 5), (7, 10), (19, 20)])
def test_a_step_from_between_two_goes_to_the_next(between: int, above: int) -> None:
    log = Log("rx", between)
    log.step()
    assert log.verbose == above


def test_every_level_is_a_step_and_the_default_warns() -> None:
    assert set(LEVELS) == set(VERBOSE_STEPS) - {0}
    assert WARNING <= VERBOSE_DEFAULT < EVENT


def test_a_stderr_without_reader_ends_the_news_and_nothing_else(pipe: Pipe) -> None:
    log = Log("rx", 20)
    with stderr_as(pipe.write_fd):
        log.say(WARNING, "heard")
        assert os.read(pipe.read_fd, 100) == b"viamillipede rx: heard\n"
        pipe.close_read()
        log.say(WARNING, "into the void")
        assert log.verbose == 0
        log.step()
    assert log.verbose == 0
    log.close()


def test_a_stderr_that_works_again_is_used_when_somebody_asks(pipe: Pipe) -> None:
    log = Log("rx", 1)
    with open("/dev/full", "wb", buffering=0) as full, stderr_as(full.fileno()):
        log.say(WARNING, "no space")
        assert log.verbose == 0
    with stderr_as(pipe.write_fd):
        log.raw("a view goes on by itself")
        log.write("a dump\n")
        log.step()
        log.say(WARNING, "news")
    assert os.read(pipe.read_fd, 1000) == b"a dump\nviamillipede rx: verbose 1\nviamillipede rx: news\n"


# A stderr that nobody reads ---------------------------------------------------------------------------------


def read_now(fd: int) -> str:
    """What is there to be read."""
    found = b""
    while select.select([fd], [], [], 0)[0] and (piece := os.read(fd, 1 << 20)):
        found += piece
    return found.decode()


def test_a_text_that_finds_no_room_is_whole_in_the_end(pipe: Pipe) -> None:
    log, text = Log("rx", 1, json=True), "x" * 500_000
    tries = 0
    with stderr_as(pipe.write_fd):
        log.say(WARNING, text)
        log.say(WARNING, "finds no room")
        heard = read_now(pipe.read_fd)
        assert 0 < len(heard) < len(text)
        while not heard.endswith("\n"):
            log.raw('{"text": "a view"}')  # makes the rest go on, and follows it
            tries += 1
            heard += read_now(pipe.read_fd)
        log.say(WARNING, "heard")
        heard += read_now(pipe.read_fd)
    texts = [json.loads(line)["text"] for line in heard.splitlines()]
    assert tries > 2
    assert texts == [text, f"{tries} messages lost: nobody read this", "a view", "heard"]


def test_nothing_is_lost_and_nothing_told_of_a_reader_who_is_only_slow(pipe: Pipe) -> None:
    log = Log("rx", 1)
    with stderr_as(pipe.write_fd):
        log.write("y" * 100_000)  # more than a pipe holds
        first = read_now(pipe.read_fd)
        log.say(WARNING, "after it")
    assert first + read_now(pipe.read_fd) == "y" * 100_000 + "\nviamillipede rx: after it\n"


def test_the_end_waits_for_the_reader_but_not_for_long(pipe: Pipe) -> None:
    log = Log("rx", 1)
    with stderr_as(pipe.write_fd):
        log.write("y" * 200_000)
        before = time.monotonic()
        log.close()
        assert CLOSE_S <= time.monotonic() - before < CLOSE_S + 5
        assert len(read_now(pipe.read_fd)) < 200_000


def test_the_end_does_not_wait_when_all_was_read(pipe: Pipe) -> None:
    log = Log("rx", 1)
    with stderr_as(pipe.write_fd):
        log.write("z\n" * 50_000)
        heard = read_now(pipe.read_fd)
        before = time.monotonic()
        log.close()
        log.close()
        assert time.monotonic() - before < CLOSE_S
        assert heard + read_now(pipe.read_fd) == "z\n" * 50_000
        log.say(WARNING, "after the end")
        assert read_now(pipe.read_fd) == "viamillipede rx: after the end\n"


# JSON -------------------------------------------------------------------------------------------------------


def objects(text: str) -> list[dict[str, Any]]:
    """Each line of JSON; its time is looked at, and left out."""
    found = [json.loads(line) for line in text.splitlines()]
    for each in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each.pop("time"))
    return found


def test_messages_and_dumps_are_one_object_each(capfd: pytest.CaptureFixture[str]) -> None:
    log = Log("rx", 2, json=True, label="db1")
    log.say(EVENT, "leg 3: up\nleg 4: up")
    log.say(LEG, "not at this level")
    log.write("leg  rate\n  0  \x1b\n")
    log.raw('{"type":"progress"}')
    log.write("")
    output, text = capfd.readouterr()
    *messages, raw = text.splitlines()
    head = {"type": "message", "version": 1, "role": "rx", "pid": os.getpid(), "label": "db1"}
    assert objects("\n".join(messages)) == [
        head | {"level": 2, "text": "leg 3: up\nleg 4: up"},
        head | {"level": 1, "text": "leg  rate\n  0  \\x1b"},
    ]
    assert (raw, output) == ('{"type":"progress"}', "")


def test_the_clock_of_views_is_utc() -> None:
    before, now, after = time.time(), utc_now(), time.time()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", now)
    stamps = [time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(each)) for each in (before, after)]
    assert stamps[0] <= now[:19] <= stamps[1]


# Terminals --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def terminal(is_raw: bool = True) -> Iterator[int]:
    """Standard error is a terminal: what a person would see through. Raw: lines end as they were written."""
    ours, theirs = pty.openpty()
    if is_raw:
        tty.setraw(theirs)
    try:
        with stderr_as(theirs):
            yield ours
    finally:
        os.close(theirs)
        os.close(ours)


def test_the_live_line_stays_below_what_is_said() -> None:
    with terminal() as screen:
        log = Log("tx", 1)
        log.live("50 %")
        assert read_now(screen) == "\r50 %\x1b[K"
        log.say(WARNING, "one\ntwo")
        assert read_now(screen) == "\r\x1b[Kviamillipede tx: one\nviamillipede tx: two\n50 %"
        log.live("51 %")
        log.write("dump\n")
        assert read_now(screen) == "\r51 %\x1b[K\r\x1b[Kdump\n51 %"
        log.live("")
        log.live("")
        assert read_now(screen) == "\r\x1b[K"
        log.say(WARNING, "three")
        assert read_now(screen) == "viamillipede tx: three\n"
        log.close()


def test_the_end_removes_the_live_line() -> None:
    with terminal() as screen:
        log = Log("tx", 1)
        log.live("100 %")
        log.close()
        assert read_now(screen) == "\r100 %\x1b[K\r\x1b[K"


def test_where_there_is_no_terminal_there_is_no_live_line(pipe: Pipe) -> None:
    with stderr_as(pipe.write_fd):
        log = Log("tx", 1)
        log.live("50 %")
        log.say(WARNING, "news")
        log.close()
    assert read_now(pipe.read_fd) == "viamillipede tx: news\n"


def test_a_terminal_that_is_not_read_stops_nothing_and_keeps_its_flags() -> None:
    with terminal(is_raw=False) as screen:
        log = Log("tx", 20)
        for number in range(20_000):
            log.say(FRAME, f"frame {number}")
            log.live(f"{number}")
        assert os.get_blocking(2), "the shell's terminal too"
        first = read_now(screen)
        assert first.startswith("viamillipede tx: frame 0\r\n")
        log.say(WARNING, "read again")
        log.close()
        rest = read_now(screen)
        assert re.search(r"\d+ messages lost: nobody read this\r\n", rest)
        assert "viamillipede tx: read again\r\n" in rest


def test_a_terminal_is_let_go_of_without_an_end_too() -> None:
    with terminal():
        before = len(os.listdir("/dev/fd"))
        log = Log("tx", 1)
        assert len(os.listdir("/dev/fd")) == before + 1
        del log
        gc.collect()
        assert len(os.listdir("/dev/fd")) == before


def test_a_full_screen_view_is_given_the_lines() -> None:
    with terminal() as screen:
        log, shown = Log("tx", 1), list[str]()
        log.live("50 %")
        log.screen(shown.append)
        assert read_now(screen) == "\r50 %\x1b[K\r\x1b[K"
        log.say(WARNING, "one\ntwo \x1b")
        log.say(EVENT, "not at this level")
        log.write("dump\n  line\n")
        log.live("51 %")
        log.step()
        assert (read_now(screen), shown) == ("", ["one", "two \\x1b", "dump", "  line", "verbose 2"])
        log.screen(None)
        log.say(WARNING, "three")
        assert (read_now(screen), shown[5:]) == ("viamillipede tx: three\n", [])
        log.screen(shown.append)
        log.close()
        log.say(WARNING, "four")
        assert (read_now(screen), shown[5:]) == ("viamillipede tx: four\n", [])
