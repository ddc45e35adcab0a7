"""Bounded memory, no descriptor lost, and what SIGUSR1 and SIGUSR2 show of it."""

import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.helpers import MIB, PATIENCE_S, Side, Stage, read_all, read_exactly, some_bytes, write_while_taken

BLOCK = some_bytes(MIB)
FIXED_BYTES = 64 * MIB  # beside the window: the interpreter, the libraries, a state per leg


def blocks(count: int) -> Iterator[bytes]:
    """So many MiB."""
    for _ in range(count):
        yield BLOCK


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 200])
@pytest.mark.parametrize("window", [64, 256], ids=["64M", "256M"])
def test_peak_memory_is_the_window_and_64_mib_at_most(stage: Stage, window: int, threads: int) -> None:
    """A reader that stops, then reads slowly, then fast; the input stays open until both were measured."""
    rx = stage.rx("window", f"{window}M")
    tx = stage.tx(rx, "window", f"{window}M", "threads", threads)
    total = 3 * window
    tx.feed(blocks(total), then_close=False)
    time.sleep(1)  # the reader stops
    for i in range(total):
        assert read_exactly(rx.output, MIB) == BLOCK
        if i % 8 == 0 and i < total // 2:
            time.sleep(0.02)
    for side in (tx, rx):
        assert side.peak_memory() <= window * MIB + FIXED_BYTES, side.role
    tx.end_input()
    assert read_all(rx.output) == b""
    tx.ends(0)
    rx.ends(0)
    assert tx.closing("legs?") == rx.closing("legs?") == threads


@pytest.mark.slow
def test_memory_is_bounded_when_a_file_takes_the_output(stage: Stage) -> None:
    """The other way out of rx, where every byte goes through memory; with small frames, of which there are many."""
    null = stage.hold(open("/dev/null", "wb"))
    rx = stage.rx("window", "64M", stdout=null)
    tx = stage.tx(rx, "window", "64M", "threads", 32, "frame", "4k")
    tx.feed(blocks(192), then_close=False)
    assert tx.fed.wait(PATIENCE_S)
    for side in (tx, rx):
        assert side.peak_memory() <= 64 * MIB + FIXED_BYTES, side.role
    tx.end_input()
    tx.ends(0)
    rx.ends(0)


@pytest.mark.slow
def test_descriptors_do_not_leak_over_1000_restarts(stage: Stage) -> None:
    threads = 8
    rx = stage.rx("regroup", "60s")
    tx = stage.tx(rx, "threads", threads, "frame", "1k", "chaos", 20, "chaos-kind", "reset", "regroup", "60s")
    tx.feed(blocks(30), then_close=False)
    most = [0, 0]
    for _ in range(30):
        assert read_exactly(rx.output, MIB) == BLOCK
        most = [max(most[0], tx.descriptors()), max(most[1], rx.descriptors())]
    idle = [tx.descriptors(), rx.descriptors()]
    tx.end_input()
    assert read_all(rx.output) == b""
    tx.ends(0)
    rx.ends(0)
    assert tx.closing("restarts") >= 1000
    for count in (*most, *idle):
        assert count <= 3 * threads + 20, "a few of its own, a leg's, and those that are coming and going"


# ---- SIGUSR1 and SIGUSR2 -----------------------------------------------------------------------------------


def dump_that_says(side: Side, pattern: str, legs: int) -> str:
    """Ask for dumps until one says this in `waiting for`; all of it."""
    for number in range(1, 100):
        side.signal(signal.SIGUSR1)
        found = side.hear(r"^  waiting for: (.*)", number)[1]
        side.hear(r"^ +\d+  (127\.0\.0\.1|\[::1\]):\d+ +(idle|busy|wait|direct|store|discard)", number * legs)
        if re.match(pattern, found):
            return side.said.rpartition(f"viamillipede {side.role}: ")[2]
        time.sleep(0.05)  # what it waits for changes by itself, a moment later
    raise AssertionError(side.said)


@pytest.mark.parametrize("state", ["input", "output"])
def test_a_dump_shows_totals_what_it_waits_for_and_a_line_per_leg(stage: Stage, state: str) -> None:
    threads = 3
    rx = stage.rx("window", "4M")
    tx = stage.tx(rx, "threads", threads, "window", "4M", "verbose", 3)
    tx.hear(r": up$", threads)
    sent = 1000
    tx.write(bytes(sent))
    if state == "output":
        sent += write_while_taken(tx.input, quiet_s=0.5)
    else:
        read_exactly(rx.output, sent)
    for side in (tx, rx):
        text = dump_that_says(side, state, threads)
        assert re.search(r"^pid \d+ at \d\d:\d\d:\d\d, [\d.]+ \w+( \(\d+ bytes\))? in .*, now ", text)
        assert re.search(r"process: [\d.]+ s user, [\d.]+ s system, .* resident, \d+ descriptors", text)
        assert re.search(r"(window|memory) .* of (at most )?4\.0 MiB", text)
    tx.end_input()
    assert len(read_all(rx.output)) == (sent if state == "output" else 0)
    tx.ends(0)
    rx.ends(0)
    assert tx.closing("restarts?") == 0


def test_a_dump_before_the_first_contact(stage: Stage) -> None:
    rx = stage.rx()
    rx.signal(signal.SIGUSR1)
    rx.hear("waiting for: the first contact")
    rx.hear(r"^ +leg +address")
    tx = stage.tx(rx)
    tx.end_input()
    assert read_all(rx.output) == b""
    tx.ends(0)
    rx.ends(0)


def test_dumps_do_not_disturb_the_stream(stage: Stage) -> None:
    rx = stage.rx()
    tx = stage.tx(rx)
    tx.feed(blocks(100))
    for number in range(1, 101):
        assert read_exactly(rx.output, MIB) == BLOCK
        if number % 10 == 0 and number <= 50:
            for side in (tx, rx):
                side.signal(signal.SIGUSR1)
                side.hear(r"^  waiting for: ", number // 10)
    assert read_all(rx.output) == b""
    tx.ends(0)
    rx.ends(0)
    assert tx.closing("restarts?") == rx.closing("restarts?") == 0


def test_sigusr2_steps_through_the_levels(stage: Stage) -> None:
    rx = stage.rx()
    tx = stage.tx(rx)
    for side in (tx, rx):
        tx.write(b"x")  # both have come so far that they handle signals
        assert read_exactly(rx.output, 1) == b"x"
        for level in (2, 3, 5, 10, 20, 0, 1):
            side.signal(signal.SIGUSR2)
            side.hear(rf"^viamillipede {side.role}: verbose {level}$")
    tx.end_input()
    assert read_all(rx.output) == b""
    tx.ends(0)
    rx.ends(0)
