"""What a person is told: by level, each line with its speaker, and never at the price of the stream."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.aio.drive import Pipe
from viamillipede.aio.log import EVENT, FRAME, LEG, OPERATION, RESENT, VERBOSE_STEPS, WARNING, Log
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
