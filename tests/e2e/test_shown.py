"""What is to be seen on a terminal: a live line that nothing tears, a dashboard that leaves no trace."""

import os
import re
import signal
import subprocess
import termios
import time
from typing import Any

import pytest

from tests.e2e.helpers import LOOPBACK, MIB, Side, Stage, eventually, read_all, read_exactly
from tests.e2e.terminal import Terminal, side_on
from viamillipede.views.dashboard import ENTER, LEAVE

RUNS_S = 2.5


def on(screen: Terminal, stage: Stage, *words: object, **streams: Any) -> Side:
    """A side whose standard error is there, and that ends with the stage."""
    side = side_on(screen, *words, **streams)
    stage.exit.callback(side.release)
    return side


def port_of(screen: Terminal) -> int:
    """Where the rx on it listens."""
    screen.shows(r"listening on port \d+ ")
    found = re.search(r"listening on port (\d+) ", screen.raw)
    assert found
    return int(found[1])


# ---- the live line -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 40, 20])
def test_the_live_line_of_tx(stage: Stage, columns: int) -> None:
    """It is there after a second, below what is said, in one row, and gone before the last words."""
    screen = stage.exit.enter_context(Terminal(columns))
    rx = stage.rx()
    tx = on(screen, stage, "tx", LOOPBACK, rx.port, "limit", "1M", "size", "4M")
    began = time.monotonic()
    tx.feed([bytes(int(RUNS_S * MIB))])
    live = screen.shows("MiB/s|[kK]iB/s")
    assert time.monotonic() - began >= 1, "a short transfer is over without one"
    assert not live.rows[-1].startswith("viamillipede") and not any(live.wrapped)
    assert len(live.rows) == 1 and 0 < len(live.rows[-1]) < columns
    for level in (2, 3, 5):
        tx.signal(signal.SIGUSR2)
        seen = screen.shows(f"viamillipede tx: verbose {level}")
        assert seen.lines()[-2] == f"viamillipede tx: verbose {level}" and not seen.wrapped[-1]
        assert "verbose" not in seen.lines()[-1], "the live line is below it, as it was"
    tx.signal(signal.SIGUSR1)
    screen.shows("   leg  address")
    assert len(read_all(rx.output)) == int(RUNS_S * MIB)
    tx.ends(0)
    rx.ends(0)
    screen.close()
    lines = screen.seen().lines()
    said = [line for line in lines if line.startswith("viamillipede tx: ")]
    dumped = [line for line in lines if line not in said]
    assert said[:3] == [f"viamillipede tx: verbose {level}" for level in (2, 3, 5)]
    assert re.match(r"viamillipede tx: 2\.5 MiB \(2621440 bytes\) in ", said[-2])
    assert lines[-2:] == said[-2:] and re.match("viamillipede tx: bottleneck: the limit that was set, ", said[-1])
    assert all(re.match(r"  |  +\d+  127", line) for line in dumped), dumped
    before = screen.raw[: screen.raw.rindex("viamillipede tx: 2.5 MiB")]
    assert before.endswith("\r\x1b[K")


def test_the_live_line_of_rx(stage: Stage) -> None:
    screen = stage.exit.enter_context(Terminal())
    rx = on(screen, stage, "rx", 0, stdin=subprocess.DEVNULL)
    tx = stage.tx(port_of(screen), "limit", "1M")
    tx.feed([bytes(2 * MIB)])
    assert re.search(r"iB/s .*\d legs? ", screen.shows(r"\d legs?").rows[-1])
    assert len(read_all(rx.output)) == 2 * MIB
    tx.ends(0)
    rx.ends(0)
    screen.close()
    first, *_, closing, verdict = screen.seen().lines()
    assert "listening on port" in first and "2097152 bytes" in closing and "bottleneck: the limit" in verdict


def test_the_size_tells_how_much_is_done_and_left(stage: Stage) -> None:
    screen = stage.exit.enter_context(Terminal(120))
    rx = stage.rx()
    tx = on(screen, stage, "tx", LOOPBACK, rx.port, "size", "10M")
    tx.feed([bytes(5 * MIB)], then_close=False)
    assert len(read_exactly(rx.output, 5 * MIB)) == 5 * MIB
    seen = screen.shows(" 50 %")
    assert re.search(r" 50 % .* 5\.0 MiB .* left", seen.rows[-1]), seen.rows
    tx.end_input()
    assert read_all(rx.output) == b""
    tx.ends(0)
    rx.ends(0)


@pytest.mark.parametrize("words", [(), ("verbose", 0), ("json",)], ids=["short", "silent", "json"])
def test_no_live_line(stage: Stage, words: tuple[object, ...]) -> None:
    """Not in a second, not when nothing is to be said, not for a program."""
    screen = stage.exit.enter_context(Terminal())
    rx = stage.rx()
    tx = on(screen, stage, "tx", LOOPBACK, rx.port, *words)
    tx.write(b"hello")
    assert read_exactly(rx.output, 5) == b"hello"
    if words:
        time.sleep(1.8)  # beyond the time at which it would be there
    tx.end_input()
    assert read_all(rx.output) == b""
    tx.ends(0)
    rx.ends(0)
    screen.close()
    assert "\x1b" not in screen.raw and bool(screen.raw) == (words != ("verbose", 0))


def hold_back(screen: Terminal, how: str) -> None:
    """Ctrl-S, or what it comes to; or nobody looks."""
    if how == "Ctrl-S":
        os.write(screen.master, b"\x13")
    elif how == "TCOOFF":
        termios.tcflow(screen.slave, termios.TCOOFF)


@pytest.mark.parametrize("words", [("verbose", 10), ("dashboard", "interval", "100ms")], ids=["lines", "dashboard"])
@pytest.mark.parametrize("how", ["Ctrl-S", "TCOOFF", "nobody reads"])
def test_a_terminal_that_takes_nothing_does_not_hold_up_the_stream(
    stage: Stage, how: str, words: tuple[object, ...]
) -> None:
    screen = stage.exit.enter_context(Terminal(is_read=False))
    hold_back(screen, how)
    rx = stage.rx()
    tx = on(screen, stage, "tx", LOOPBACK, rx.port, *words, "limit", "4M")
    tx.feed([bytes(6 * MIB)])  # thousands of lines, or a dozen pictures: more than a terminal holds
    assert len(read_all(rx.output)) == 6 * MIB
    tx.ends(0, 20)
    rx.ends(0)
    termios.tcflow(screen.slave, termios.TCOON)
    screen.look()


# ---- the dashboard -------------------------------------------------------------------------------------------


def is_drawn(screen: Terminal) -> None:
    """A whole picture is there, and no row is too long for it."""
    screen.shows(re.escape(ENTER))
    eventually(lambda: len(screen.seen().rows) == 24, "a row for each of the terminal's")
    seen = screen.shows(r"127\.0\.0\.1")
    text = "\n".join(seen.rows)
    assert len(seen.rows) == 24 and all(word in text for word in ("127.0.0.1", " now ", " LEG ", " PATH ")), text
    assert not seen.is_normal() and all(len(row) <= 80 for row in seen.rows)


def leaves_no_trace(screen: Terminal) -> list[str]:
    """The terminal is as it was; the lines on it."""
    screen.close()
    seen = screen.seen()
    assert seen.is_normal() and screen.raw.count(ENTER) == screen.raw.count(LEAVE) == 1
    return seen.lines()


def test_the_dashboards_of_a_success(stage: Stage) -> None:
    """What is said before and after it is where it would be without it, and nothing of it is left."""
    screens = [stage.exit.enter_context(Terminal()) for _ in range(2)]
    rx = on(screens[0], stage, "rx", 0, "dashboard", stdin=subprocess.DEVNULL)
    port = port_of(screens[0])
    tx = on(screens[1], stage, "tx", LOOPBACK, port, "dashboard", "limit", "1M")
    tx.feed([bytes(2 * MIB)])
    for screen in screens:
        is_drawn(screen)
    tx.signal(signal.SIGUSR2)
    eventually(lambda: "verbose 2" in "\n".join(screens[1].seen().rows[-3:]), "what is said is at the bottom")
    assert len(read_all(rx.output)) == 2 * MIB
    tx.ends(0)
    rx.ends(0)
    for screen, role in zip(screens, ("rx", "tx"), strict=True):
        *_, closing, verdict = leaves_no_trace(screen)
        assert closing.startswith(f"viamillipede {role}: 2.0 MiB (2097152 bytes) in ")
        assert verdict.startswith(f"viamillipede {role}: bottleneck: ")


@pytest.mark.parametrize(
    ("how", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (None, 5, "the other process is gone")],
    ids=["SIGINT", "SIGTERM", "rx is killed"],
)
def test_a_dashboard_leaves_no_trace_of_a_failure_but_the_reason(
    stage: Stage, how: signal.Signals | None, status: int, word: str
) -> None:
    screen = stage.exit.enter_context(Terminal())
    rx = stage.rx()
    tx = on(screen, stage, "tx", LOOPBACK, rx.port, "dashboard", "regroup", "500ms")
    tx.write(b"x")
    assert read_exactly(rx.output, 1) == b"x"
    is_drawn(screen)
    if how is None:
        rx.kill()
    else:
        tx.signal(how)
    tx.ends(status)
    closing, *_, reason = leaves_no_trace(screen)  # and, if it was long enough, a verdict
    assert closing.startswith("viamillipede tx: incomplete, ")
    assert reason.startswith("viamillipede tx: ") and word in reason


@pytest.mark.parametrize("role", ["tx", "rx"])
def test_a_dashboard_needs_a_terminal(stage: Stage, role: str) -> None:
    words = {"tx": ("tx", LOOPBACK, 1), "rx": ("rx", 0)}[role]
    side = stage.tx_words(*words, "dashboard", stdin=subprocess.DEVNULL)
    said = side.ends(2).splitlines()
    assert said[0].startswith("viamillipede: dashboard needs a terminal on standard error; ")
